# Run by gdb over minigo and program.go, behind tools/gdb/stackmark.py. Lets the program run, from one
# stop to the next, until each goroutine but the first stands where it stays. Then the program goes
# on to its last stop.
stops = 0
while True:
    others = [g for g in Info().goroutines() if g.state != RUNNING]
    if sum(g.callbacks != 0 for g in others) == 1 and all(g.state in (PARKED, FOREIGN) for g in others):
        break
    stops += 1
    if stops == 10_000:
        raise gdb.GdbError("the goroutines do not come to rest")
    gdb.execute("continue", to_string=True)
gdb.execute("with language c -- set variable waits = 2")
gdb.execute("continue")
