"""How every picture of this project looks: one place for colours, so that they mean the same."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# From the palette of Okabe and Ito, which colour-blind people tell apart; the line style says it
# again in black and white.
STYLES = {
    "control": {"color": "#E69F00", "linestyle": "--"},
    "vcr": {"color": "#0072B2", "linestyle": "-"},
}
plt.rcParams["savefig.facecolor"] = "white"  # legible on dark pages too
