# Run by gdb over a test of stackmark-asm for arm64, which an emulator runs: see `arm64-steps`. Steps
# through the test one instruction at a time, and notes what calls and returns say of the stacks. At
# each instruction of the assembly gdb's backtrace must say the same.
import gdb
import os

gdb.execute("set language c")
LIMIT = int(os.environ["STEPS_LIMIT"])


def address(symbol):
    return int(gdb.parse_and_eval("(unsigned long)&%s" % symbol))


def register(name):
    return int(gdb.parse_and_eval("(unsigned long)$%s" % name))


def instruction(pc):
    return int.from_bytes(gdb.selected_inferior().read_memory(pc, 4).tobytes(), "little")


def callers():
    """The return addresses of all frames, youngest first, without stubs."""
    found, frame = [], gdb.newest_frame()
    while frame is not None:
        older = frame.older()
        if older is None:
            reason = frame.unwind_stop_reason()
            whole = reason in (gdb.FRAME_UNWIND_NO_REASON, gdb.FRAME_UNWIND_OUTERMOST)
            return found, None if whole else gdb.frame_stop_reason_string(reason)
        # Functions that were inlined have no frame on the stack.
        if frame.type() != gdb.INLINE_FRAME and older.pc() not in POOL:
            found.append(older.pc())
        frame = older


def is_call(word):
    return word >> 26 == 0b100101 or word & 0xFFFFFC1F == 0xD63F0000


def is_return(word):
    return word & 0xFFFFFC1F == 0xD65F0000


def is_jump(word):
    return word & 0xFFFFFC1F == 0xD61F0000


# The test that is stepped through calls this before its goroutine runs.
gdb.execute("break *stackmark_set_current", to_string=True)
gdb.execute("continue", to_string=True)
gdb.execute("delete", to_string=True)
POOL = range(address("stackmark_barrier_pool"), address("stackmark_barrier_pool_end"))
ASSEMBLY = range(address("stackmark_switch_out"), POOL.stop)

ENTRY = address("stackmark_goroutine_entry")
RETURNED = address("stackmark_system_call_returned")
BETWEEN = (
    range(ASSEMBLY.start, address("stackmark_call_system")),
    range(address("stackmark_system_call_begin"), address("stackmark_callback_begin")),
)


def is_between(pc):
    """Whether the code there may be on one stack and belong to the other."""
    return any(pc in part for part in BETWEEN)


# What is to be returned to, oldest first: on the thread's side, and on the goroutine's.
THREAD, GOROUTINE = 0, 1
shadow = [list(reversed(callers()[0])), []]
side = THREAD
end = len(shadow[THREAD]) - 2
steps = compared = stubs = hits = switches = landings = 0
wrong = []
symbols = {}


def name(pc):
    if pc not in symbols:
        text = gdb.execute("info symbol %#x" % pc, to_string=True)
        symbols[pc] = text.split(" in section")[0].strip()
    return symbols[pc]


while steps < LIMIT and (side == GOROUTINE or len(shadow[THREAD]) >= end):
    pc = register("pc")
    if pc in ASSEMBLY:
        compared += 1
        stubs += pc in POOL
        found, stopped = callers()
        # A new goroutine begins by a return.
        if side == GOROUTINE and found == [ENTRY] and is_between(pc):
            shadow[GOROUTINE] = [ENTRY]
        own, other = (list(reversed(part)) for part in (shadow[side], shadow[1 - side]))
        # Between two stacks the walk may begin on either; `run` has no frame on the thread's.
        right = found == own or is_between(pc) and (
            found == other or found[1:] in (shadow[THREAD][::-1], shadow[GOROUTINE][::-1]))
        if stopped or not right:
            wrong.append((name(pc), stopped, [name(at) for at in found], [name(at) for at in own]))
            if len(wrong) > 5:
                break
    word = instruction(pc)
    try:
        gdb.execute("stepi", to_string=True)
    except gdb.error as error:
        print("ended: %s" % error)
        break
    steps += 1
    to = register("pc")
    if is_call(word) and pc not in POOL:
        shadow[side].append(pc + 4)
    elif is_return(word):
        if name(pc).startswith("_Unwind_") and shadow[side][-1:] != [to]:
            # The unwinder goes on at a landing pad, whose frame is one of those that there are.
            landings += 1
            found = list(reversed(callers()[0]))
            if shadow[side][: len(found)] != found:
                wrong.append((name(pc), "returns to " + name(to), [name(at) for at in found],
                              [name(at) for at in shadow[side]]))
            shadow[side] = found
        elif to in POOL:
            hits += 1
        elif shadow[side][-1:] == [to]:
            shadow[side].pop()
        else:
            wrong.append((name(pc), "returns to " + name(to), [name(at) for at in shadow[side]]))
            break
    elif is_jump(word) and pc not in ASSEMBLY and is_between(to):
        side, switches = GOROUTINE, switches + 1
    elif is_jump(word) and pc in ASSEMBLY and to not in ASSEMBLY and shadow[side][-1:] != [to]:
        if is_between(pc):
            side, switches = THREAD, switches + 1
            # Native frames of a call out have been dropped; it goes on as if they had returned.
            if RETURNED in shadow[GOROUTINE]:
                at = len(shadow[GOROUTINE]) - 1 - shadow[GOROUTINE][::-1].index(RETURNED)
                del shadow[GOROUTINE][at:]

print("%d instructions, %d of the assembly compared, %d of these in stubs; %d hits, %d switches, "
      "%d landings" % (steps, compared, stubs, hits, switches, landings))
for what in wrong:
    print("WRONG", *what, sep="\n    ")
gdb.execute("kill")
