"""The parts of `tuner.tune`: what a trial trains on, how it trains, and what is measured of it."""
