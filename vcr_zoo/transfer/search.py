"""Settings chosen on validation with a stated number of runs."""

from collections.abc import Callable, Mapping

Evaluate = Callable[[dict], float]  # settings -> validation accuracy


def climb(
    evaluate: Evaluate, start: dict, factors: Mapping[str, float], budget: int
) -> tuple[dict, list[tuple[dict, float]]]:
    """Better settings than `start`, one after the other: multiplied by their factor, divided by
    it, and again for as long as it helps. `evaluate` is called `budget` times at most.

    Returns:
        The best settings (of equals the ones tried first), and every trial with its value.

    Raises:
        ValueError: for a budget below one.
    """
    if budget < 1:
        raise ValueError(f"a search of {budget} runs: give a budget of 1 or more")
    trials = [(start, evaluate(start))]
    best, value = trials[0]
    for name, factor in factors.items():
        if not best[name]:  # a multiple of zero is no other value
            continue
        for step in (factor, 1 / factor):
            moved = False
            while len(trials) < budget:
                trial = {**best, name: best[name] * step}
                trials.append((trial, evaluate(trial)))
                if trials[-1][1] <= value:
                    break
                best, value = trials[-1]
                moved = True
            if moved:  # the other side is where we came from
                break
    return best, trials


def narrow(evaluate: Callable[[int], float], last: int, budget: int | None = None) -> dict:
    """Values at some of the depths 0 .. last, closer and closer to the best.

    After two depths, a golden section of all, each next one halves the wider gap beside the best
    so far; where that is the outermost, the end on its side comes first, for that is often the
    best: 0 is full fine-tuning. Where the values rise and then fall that leads to the best depth,
    unless runs are too few; noise can make it miss.

    Args:
        budget: calls of `evaluate`; None: a third of the depths or, of fewer than six, all.

    Returns:
        Value by depth, of those that were looked at, in that order.
    """
    if budget is None:
        budget = (last + 1) // 3 if last >= 5 else last + 1
    first = round(0.382 * last)
    known: dict[int, float] = {}
    for t in dict.fromkeys((first, last - first)):
        if len(known) < budget:
            known[t] = evaluate(t)
    while len(known) < budget:
        best = best_depth(known)
        end = 0 if best == min(known) else last if best == max(known) else best
        if end not in known:
            known[end] = evaluate(end)
            continue
        left = max((t for t in known if t < best), default=best)
        right = min((t for t in known if t > best), default=best)
        if max(best - left, right - best) < 2:
            break
        t = (left + best) // 2 if best - left >= right - best else (best + right) // 2
        known[t] = evaluate(t)
    return known


def best_depth(values: Mapping[int, float]) -> int:
    """The depth of the highest value; of equals the deepest, which costs least."""
    return max(values, key=lambda t: (values[t], t))
