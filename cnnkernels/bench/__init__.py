"""The benchmark suite: what is measured (layer, suites, collect), by whom (providers), whether it counts (gate),
how (timing, machine), and where it is kept (store). docs/benchmarking.md is the method in words."""
