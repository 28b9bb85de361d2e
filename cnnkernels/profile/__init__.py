"""What a kernel launch does, and what that would cost on an H200, without a GPU.

    subject                         what is profiled: a layer of a suite, a problem in text, a file of trials
    passes, worker, run             one pass in the checked emulator, in a process of its own
    launches, counters              what was counted, and what it comes to per tensor and shared array
    machine_code                    floating-point instructions, from the machine code that ran
    resources, occupancy            the compiler's report for sm_90a, and how much of the kernel fits a multiprocessor
    hardware, model, lines          the H200 in constants with their sources; the time of each resource; its dearest lines
    report, page                    all of it together, for a machine and for people

The counters are exact. The time is a model's: the least that each resource needs for what was counted, and the largest of
these. It leaves out latency and every instruction that is not counted (integer arithmetic above all), so that it says what
a kernel cannot be faster than, not how fast it is.
"""
