"""Detectors: pure functions that judge one condition of one value. The reducer calls them; they publish nothing."""
