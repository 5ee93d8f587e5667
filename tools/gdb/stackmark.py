"""Goroutines for gdb, in a live process and in a core file.

    source tools/gdb/stackmark.py

    info goroutines          number, state, thread and innermost function of each goroutine
    goroutine N bt [COUNT]   the stack of goroutine N, youngest frame first
    goroutine N COMMAND      COMMAND with the youngest frame of goroutine N selected
    goroutine all bt         the stacks of all goroutines

A goroutine that runs, or is in native code, is shown as its thread has it: native and managed
frames in their true order. Any other is shown from where it will go on. Nothing of the process is
changed: no register, no memory. So it works in core files, too.

A return barrier is not shown: in its place stands the frame that it returns to, as if the barrier
were not there. The same holds for `bt`; `disable frame-filter global stackmark` ends that.

The script reads `stackmark_debug_info`, which stack/src/runtime/debug_info.rs describes, and goes by
no debugging information of the library. gdb itself unwinds. It knows managed code by its JIT
interface, in core files as well, and the assembly by its CFI.
"""

import re
import struct

import gdb
from gdb.unwinder import Unwinder

MAGIC = b"stackmark debug\0"
VERSION = 1

# The words of the struct behind its size, in their order.
WORDS = """
    here runtimes jit_descriptor system_call_begin system_call_end callback_begin callback_end
    entry_begin entry_end native_return pool_begin pool_end table stub_bytes runtime_next runtime_id
    runtime_goroutines goroutine_next goroutine_id goroutine_status goroutine_foreign goroutine_held
    goroutine_thread goroutine_stack_hi goroutine_stack_lo goroutine_pc goroutine_sp goroutine_fp
    goroutine_callbacks goroutine_entry enter_begin enter_end call_native_begin call_native_end
    goroutine_on_thread
""".split()

STATES = {0: "runnable", 1: "running", 2: "foreign", 3: "parked"}
RUNNABLE, RUNNING, FOREIGN, PARKED, DEAD = range(5)

# The registers that a goroutine's own words hold, by the name of the architecture: pc, sp, fp.
REGISTERS = {"i386:x86-64": ("rip", "rsp", "rbp")}

# More records than any process has: a list that is longer is damaged.
MAX_RECORDS = 100_000_000


def symbol_address(name):
    """The address of a global variable, by its symbol alone."""
    # The frame's language may be Rust, in which this means nothing.
    command = "with language c -- output/x (unsigned long) &" + name
    try:
        shown = gdb.execute(command, to_string=True)
    except gdb.error:
        return None
    # There may be a warning about the language beside it.
    found = re.search("0x[0-9a-f]+", shown)
    return int(found.group(), 16) if found else None


class Info:
    """The process's description, and memory by its means."""

    def __init__(self):
        at = symbol_address("stackmark_debug_info")
        if at is None:
            raise gdb.GdbError("no symbol stackmark_debug_info: not a process of Stackmark's")
        self.inferior = gdb.selected_inferior()
        fixed = 24
        magic, version, size = struct.unpack("=16sII", self.bytes(at, fixed))
        if magic != MAGIC:
            raise gdb.GdbError("stackmark_debug_info is damaged: it does not begin with its magic")
        if version != VERSION:
            raise gdb.GdbError(
                "this script knows version %d of stackmark_debug_info; the process has %d"
                % (VERSION, version)
            )
        if size < fixed + 8 * len(WORDS):
            raise gdb.GdbError("stackmark_debug_info is too short: %d bytes" % size)
        words = struct.unpack("=%dQ" % len(WORDS), self.bytes(at + fixed, 8 * len(WORDS)))
        self.__dict__.update(zip(WORDS, words))
        if self.here != at:
            raise gdb.GdbError("the process has made no runtime yet")
        ranges = ("system_call", "callback", "enter", "call_native", "pool")
        self.hidden = [(getattr(self, r + "_begin"), getattr(self, r + "_end")) for r in ranges]

    def bytes(self, address, length):
        try:
            return self.inferior.read_memory(address, length).tobytes()
        except gdb.MemoryError:
            raise gdb.GdbError("cannot read the memory at %#x" % address)

    def word(self, address):
        return struct.unpack("=Q", self.bytes(address, 8))[0]

    def half(self, address):
        return struct.unpack("=I", self.bytes(address, 4))[0]

    def is_ours(self, pc):
        """Whether a frame is the assembly's or a barrier's, and none of the program's."""
        return pc == self.native_return or any(begin <= pc < end for begin, end in self.hidden)

    def is_stub(self, pc):
        return self.pool_begin <= pc < self.pool_end

    def is_oldest(self, pc):
        # A return address may stand behind the last instruction.
        return self.entry_begin <= pc - 1 < self.entry_end or pc == self.entry_begin

    def goroutines(self):
        """All goroutines that have not ended, by runtime and number."""
        found = []
        runtime = self.runtimes
        count = 0
        while runtime:
            number = self.word(runtime + self.runtime_id)
            record = self.word(runtime + self.runtime_goroutines)
            while record:
                goroutine = Goroutine(self, record, number)
                if goroutine.state != DEAD:
                    found.append(goroutine)
                record = self.word(record + self.goroutine_next)
                count += 1
                if count > MAX_RECORDS:
                    raise gdb.GdbError("the list of goroutines has no end")
            runtime = self.word(runtime + self.runtime_next)
        return sorted(found, key=lambda g: (g.runtime, g.id))


class Goroutine:
    def __init__(self, info, record, runtime):
        self.info, self.record, self.runtime = info, record, runtime
        self.id = info.word(record + info.goroutine_id)
        self.state = info.half(record + info.goroutine_status) & 0x7FFFFFFF
        if self.state == RUNNING:
            away = info.half(record + info.goroutine_foreign) | info.half(
                record + info.goroutine_held
            )
            self.state = FOREIGN if away else RUNNING
        self.lwp = info.half(record + info.goroutine_thread)
        self.low = info.word(record + info.goroutine_stack_lo)
        self.high = info.word(record + info.goroutine_stack_hi)
        self.callbacks = info.word(record + info.goroutine_callbacks)
        self.entry = info.word(record + info.goroutine_entry)
        # Its stack is its thread's own.
        self.is_thread = info.half(record + info.goroutine_on_thread) != 0

    def registers(self):
        """pc, stack pointer and frame pointer with which it goes on."""
        info = self.info
        at = (info.goroutine_pc, info.goroutine_sp, info.goroutine_fp)
        return tuple(info.word(self.record + offset) for offset in at)

    def describe(self):
        text = STATES.get(self.state, "state %d" % self.state)
        if self.callbacks and not self.is_thread and self.state not in (RUNNING, FOREIGN):
            text += " in a callback"
        return text

    def on_thread(self):
        return self.state in (RUNNING, FOREIGN) or self.callbacks != 0

    def thread(self):
        """The thread that it may be on."""
        if not self.on_thread():
            return None
        for thread in self.info.inferior.threads():
            if self.lwp in thread.ptid[1:]:
                return thread
        return None


class Elsewhere(Unwinder):
    """While it has registers, the youngest frame's caller is the frame with these registers."""

    def __init__(self):
        super().__init__("stackmark")
        self.registers = None
        self.youngest = None

    def __call__(self, pending):
        if self.registers is None:
            return None
        names = REGISTERS.get(pending.architecture().name())
        if names is None:
            return None
        held = tuple(int(pending.read_register(name)) % 2**64 for name in names[:2])
        if held != self.youngest:
            return None

        class Id:
            pass

        frame = Id()
        frame.sp = gdb.Value(self.registers[1])
        frame.pc = gdb.Value(self.registers[0])
        found = pending.create_unwind_info(frame)
        for name, value in zip(names, self.registers):
            kind = pending.read_register(name).type
            found.add_saved_register(name, gdb.Value(value).cast(kind))
        return found


ELSEWHERE = Elsewhere()
gdb.unwinder.register_unwinder(None, ELSEWHERE, replace=True)


class Selected:
    """A goroutine's stack as gdb's own, for as long as the `with` lasts. The value is its youngest
    frame."""

    def __init__(self, goroutine):
        self.goroutine = goroutine

    def __enter__(self):
        self.thread = gdb.selected_thread()
        if self.thread is None:
            raise gdb.GdbError("there is no thread")
        try:
            self.level = gdb.selected_frame().level()
        except gdb.error:
            self.level = 0
        try:
            return self.youngest()
        except BaseException:
            self.__exit__()
            raise

    def youngest(self):
        thread = self.goroutine.thread()
        if thread is not None:
            thread.switch()
            if self.goroutine.is_thread or stands_on(self.goroutine):
                return gdb.newest_frame()
        frame = gdb.newest_frame()
        names = REGISTERS.get(frame.architecture().name())
        if names is None:
            raise gdb.GdbError("unknown architecture: %s" % frame.architecture().name())
        # Functions that are inlined there share the registers.
        ELSEWHERE.youngest = tuple(int(frame.read_register(n)) % 2**64 for n in names[:2])
        ELSEWHERE.registers = self.goroutine.registers()
        gdb.invalidate_cached_frames()
        frame = gdb.newest_frame()
        while frame is not None:
            held = tuple(int(frame.read_register(n)) % 2**64 for n in names[:2])
            if held == ELSEWHERE.registers[:2]:
                return frame
            frame = frame.older()
        raise gdb.GdbError("gdb does not take the registers of goroutine %d" % self.goroutine.id)

    def __exit__(self, *_):
        ELSEWHERE.registers = None
        gdb.invalidate_cached_frames()
        self.thread.switch()
        frame = gdb.newest_frame()
        while self.level > 0 and frame.older() is not None:
            frame, self.level = frame.older(), self.level - 1
        frame.select()


def stands_on(goroutine):
    """Whether the selected thread stands on the goroutine's stack, or has called out from it."""
    info = goroutine.info
    frame = gdb.newest_frame()
    while frame is not None:
        pc = frame.pc()
        if info.is_oldest(pc):
            stack_pointer = int(frame.read_register("sp")) % 2**64
            return goroutine.low <= stack_pointer <= goroutine.high
        frame = frame.older()
    return False


NAMES = {}


def name_of(frame):
    """The function's name as the program has it. gdb would take `main.f` for a name of another
    language, and change it."""
    function = frame.function()
    if function is not None:
        return frame.name() or function.name
    pc = frame.pc()
    if pc in NAMES:
        return NAMES[pc]
    name = frame.name()
    demangled = gdb.parameter("print demangle")
    try:
        gdb.set_parameter("print demangle", False)
        # A return address may stand behind the function's last instruction.
        text = gdb.execute("info symbol %#x" % (pc - 1), to_string=True)
    finally:
        gdb.set_parameter("print demangle", demangled)
    if not text.startswith("No symbol"):
        linkage = text.split(" in section ")[0].split(" + ")[0].strip()
        # Names of C++ and Rust are better as gdb shows them.
        if not linkage.startswith("_"):
            name = linkage
    NAMES[pc] = name or "??"
    return NAMES[pc]


def place_of(frame):
    """` at FILE:LINE`, or nothing."""
    where = frame.find_sal()
    if where is None or where.symtab is None or not where.line:
        return ""
    return " at %s:%d" % (where.symtab.filename, where.line)


def frames(info, frame):
    """The goroutine's frames from `frame` on that are the program's."""
    while frame is not None:
        pc = frame.pc()
        if info.is_oldest(pc):
            return
        if not info.is_ours(pc) and not is_switch(frame):
            yield frame
        frame = frame.older()


def is_switch(frame):
    """Whether the frame is the assembly's part of a call out or of a callback on the other stack."""
    return frame.function() is None and frame.name() == "__morestack"


def reason(frame):
    """Why there is no frame behind this one, if that is a fault."""
    while frame.older() is not None:
        frame = frame.older()
    why = frame.unwind_stop_reason()
    if why in (gdb.FRAME_UNWIND_NO_REASON, gdb.FRAME_UNWIND_OUTERMOST):
        return None
    return gdb.frame_stop_reason_string(why)


def header(goroutine):
    thread = goroutine.thread()
    where = ", thread %d (LWP %d)" % (thread.num, goroutine.lwp) if thread is not None else ""
    return "goroutine %d [%s%s]:" % (goroutine.id, goroutine.describe(), where)


def backtrace(goroutine, count):
    print(header(goroutine))
    with Selected(goroutine) as youngest:
        level = 0
        for frame in frames(goroutine.info, youngest):
            if level == count:
                print("(more frames)")
                return
            print("#%-3d %#x in %s%s" % (level, frame.pc(), name_of(frame), place_of(frame)))
            level += 1
        why = reason(youngest)
        if why is not None:
            print("the stack is cut off: %s" % why)


class InfoGoroutines(gdb.Command):
    """Number, state, thread and innermost function of each goroutine.

    info goroutines"""

    def __init__(self):
        super().__init__("info goroutines", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        if argument:
            raise gdb.GdbError("info goroutines takes no argument")
        goroutines = Info().goroutines()
        several = len({g.runtime for g in goroutines}) > 1
        for goroutine in goroutines:
            place = "??"
            try:
                with Selected(goroutine) as youngest:
                    for frame in frames(goroutine.info, youngest):
                        place = name_of(frame) + place_of(frame)
                        break
                    else:
                        place = "at its beginning"
            except (gdb.error, gdb.GdbError) as error:
                place = "(%s)" % error
            thread = goroutine.thread()
            print(
                "%s%-6d %-10s %-12s %s"
                % (
                    "%d:" % goroutine.runtime if several else "",
                    goroutine.id,
                    goroutine.describe(),
                    "thread %d" % thread.num if thread is not None else "-",
                    place,
                )
            )


class GoroutineCommand(gdb.Command):
    """The stack of a goroutine, or a command there.

    goroutine N bt [COUNT]
    goroutine N COMMAND
    goroutine all bt [COUNT]"""

    def __init__(self):
        super().__init__("goroutine", gdb.COMMAND_STACK, gdb.COMPLETE_COMMAND)

    def invoke(self, argument, from_tty):
        which, _, command = argument.strip().partition(" ")
        command = command.strip()
        if not which or not command:
            raise gdb.GdbError("usage: goroutine N|all bt [COUNT], or goroutine N COMMAND")
        goroutines = Info().goroutines()
        if which != "all":
            if not which.isdigit():
                raise gdb.GdbError("%s is no number of a goroutine" % which)
            goroutines = [g for g in goroutines if g.id == int(which)]
            if not goroutines:
                raise gdb.GdbError("no goroutine %s" % which)
        verb, _, count = command.partition(" ")
        for goroutine in goroutines:
            if verb in ("bt", "backtrace", "where"):
                if count and not count.strip().isdigit():
                    raise gdb.GdbError("%s is no number of frames" % count)
                backtrace(goroutine, int(count) if count else None)
            else:
                with Selected(goroutine) as youngest:
                    youngest.select()
                    gdb.execute(command, from_tty)


class HideBarriers:
    """`bt` without the frames of barrier stubs."""

    def __init__(self):
        self.name = "stackmark"
        self.priority = 100
        self.enabled = True
        gdb.frame_filters[self.name] = self

    def filter(self, frames):
        begin = symbol_address("stackmark_barrier_pool")
        end = symbol_address("stackmark_barrier_pool_end")
        if begin is None or end is None:
            return frames
        return (f for f in frames if not begin <= f.inferior_frame().pc() < end)


InfoGoroutines()
GoroutineCommand()
HideBarriers()
