"""Many runs side by side: the member axis, what to try, sweeps, populations, one run over devices."""
