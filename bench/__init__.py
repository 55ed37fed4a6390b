"""What maintd costs, measured as ratios against baselines of the same run.

`python -m bench` runs every row (`make bench`). The modules: `mix` makes Nova's notifications and the fleet they are
about, `whole_path`, `scale`, `size`, `latency`, `emptied`, `healing`, `at_rest`, `rolling` and `slow_moves` measure a
row each, `support` has what they share, `calls` counts what Nova is asked.
`intake` and `store` are benchmarks of one part alone, run by hand.
"""
