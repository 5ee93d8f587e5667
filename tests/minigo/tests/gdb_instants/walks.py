# Run by gdb over minigo and program.go. Prints a line of JSON for each walk that gdb makes: at every
# entry of main.leaf, and if SEED is not 0, at instants in between, most of them on the way through a
# barrier.
import json
import os
import random

import gdb

EVENTS = int(os.environ["EVENTS"])
SEED = int(os.environ["SEED"])
LEAPS = [int(most) for most in os.environ["LEAPS"].split(",")]

choose = random.Random(SEED)
symbols = {}


def symbol(pc):
    """What holds pc, and how far into it that is."""
    if pc not in symbols:
        text = gdb.execute("info symbol %#x" % pc, to_string=True)
        behind = text.startswith("No symbol")
        if behind:
            # The call of a function that does not return may be its caller's last instruction.
            text = gdb.execute("info symbol %#x" % (pc - 1), to_string=True)
        name, _, rest = text.partition(" in section ")[0].partition(" + ")
        symbols[pc] = (name.strip(), int(rest or 0) + behind)
    return symbols[pc]


def walk():
    """The frames, youngest first: name, offset in it, stack pointer."""
    frames = []
    frame = gdb.newest_frame()
    while True:
        older = frame.older()
        # Functions that were inlined have no frame on the stack.
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            name, offset = symbol(frame.pc())
            frames.append((name, offset, int(frame.read_register("sp")) % 2**64))
        if older is None:
            return frames, gdb.frame_stop_reason_string(frame.unwind_stop_reason())
        frame = older


def pc():
    return gdb.newest_frame().pc()


class Run:
    def __init__(self):
        gdb.execute("break main.leaf", to_string=True)
        gdb.execute(os.environ["RUN"], to_string=True)
        gdb.execute("delete", to_string=True)
        # The entry itself, where no frame has been made yet.
        name, offset = symbol(pc())
        self.leaf = pc() - offset
        gdb.Breakpoint("*%#x" % self.leaf)
        self.event = 0

    def go(self, command):
        """Lets the program run, and reports where it stands."""
        gdb.execute(command, to_string=True)
        self.event += pc() == self.leaf
        self.tell()

    def tell(self):
        frames, stopped = walk()
        at_event = pc() == self.leaf
        line = {"event": self.event, "at_event": at_event, "frames": frames, "stopped": stopped}
        print("\nwalk " + json.dumps(line))
        return frames

    def go_to(self, address):
        """Goes on to an address; False if the next event comes first."""
        stop = gdb.Breakpoint("*%#x" % address, temporary=True)
        self.go("continue")
        if stop.is_valid():
            stop.delete()
        return pc() == address

    def through_barrier(self, thorough):
        """Goes on to one of the youngest barriers, and through it: one instruction at a time, or in
        leaps. False if the next event comes first."""
        stubs = []
        frame = gdb.newest_frame()
        while frame is not None and len(stubs) < 3:
            if symbol(frame.pc())[0] == "barrier_pool":
                stubs.append(frame.pc())
            frame = frame.older()
        if not stubs or not self.go_to(choose.choice(stubs)):
            return False
        if not thorough:
            for most in choose.sample(LEAPS, 3):
                self.go("stepi %d" % choose.randint(1, most))
            return True
        while symbol(pc())[0] in ("barrier_pool", "barrier_common", "__morestack"):
            self.go("stepi")
        # In the function that handles the hit.
        for most in (5, 50, 500):
            self.go("stepi %d" % choose.randint(1, most))
        frame = gdb.newest_frame()
        while symbol(frame.pc())[0] != "__morestack":
            frame = frame.older()
            if frame is None:
                return False
        if self.go_to(frame.pc()):
            while symbol(pc())[0] == "__morestack":
                self.go("stepi")
        return True


run = Run()
thorough = 2
while run.event < EVENTS:
    run.go("continue")
    if SEED != 0 and choose.randrange(3) != 0:
        thorough -= run.through_barrier(thorough > 0)
gdb.execute("kill")
