"""What a kernel launch does, and what that would cost on an H200, without a GPU.

    subject                         what is profiled: a layer of a suite, a problem in text, a file of trials
    passes, worker, run             one pass in the checked emulator, in a process of its own
    launches, counters              what was counted, and what it comes to per tensor and shared array
    machine_code                    floating-point instructions, from the machine code that ran
    remarks                         what the numbers of a launch leave out, as sentences
    resources, occupancy            the compiler's report for sm_90a, and how much of the kernel fits a multiprocessor
    hardware, model, lines          the H200 in constants with their sources; the time of each resource; its dearest lines
    report                          all of it together, and the same for a machine
    page, tables, text              for people: the page, tables that fit a terminal, numbers with their units

The counters are exact, of the accesses that the source makes. The time is a model's: what each resource needs for what was
counted, and the largest of these. It leaves out latency and every instruction that is not counted (integer arithmetic above
all), and a GPU's compiler may do with one access what was counted as several: it says what limits a kernel and which of two
moves less, not how fast either is.
"""
