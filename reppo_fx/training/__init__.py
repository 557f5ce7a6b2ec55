"""One run: collecting, the iteration, evaluation, assembly, presets."""
