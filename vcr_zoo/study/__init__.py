"""Many runs of recipes: pairs compared over seeds, settings chosen on validation."""
