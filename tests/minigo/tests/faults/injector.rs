//! Makes system calls of a process fail. A filter of the process's own has the system ask this
//! process about each call that the filter names (seccomp's user notification). The answer is to go
//! on, or an error. The process is not stopped or traced otherwise: its threads race as ever.
#![allow(dead_code, reason = "the soak uses a part")]

use limits::{Exceeded, Limits};
use std::collections::{BTreeMap, HashMap};
use std::io::{Error, Read, Result};
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

/// A system call's number.
pub(crate) type Call = i64;

/// Calls that are never asked about: they cannot fail, or this file makes them itself. A signal
/// that comes while the system asks has the call return EINTR, undone. Callers take close(2) for
/// done then: a shell would keep a pipe open for ever.
pub(crate) const LEFT_ALONE: [Call; 6] = [
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_close,
    SEND,
];

const SEND: Call = libc::SYS_sendmsg;

/// Where the program's own calls begin: the last call of the start-up of Rust's standard library,
/// which makes it so often. That gives the main thread a signal stack, or aborts.
const BEGIN: (Call, u32) = (libc::SYS_sigaltstack, 2);

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    GoOn,
    /// It fails with this number.
    Fail(i32),
    /// It returns this, as brk(2) does when it fails.
    Return(i64),
}

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) status: std::result::Result<ExitStatus, Exceeded>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// How often it has made which call, of those asked about.
    pub(crate) made: BTreeMap<Call, u64>,
}

impl Ended {
    /// The first line on standard error that has words.
    pub(crate) fn said(&self) -> String {
        self.stderr.lines().find(|line| !line.is_empty()).unwrap_or("").to_owned()
    }
}

/// Which calls are asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    All,
    These(&'a [Call]),
}

/// Runs the command to its end. `answer` is asked about each call: which, and how many of its kind
/// came before. Calls of other processes that it starts, and those before [`BEGIN`], go on unasked.
pub(crate) fn run(
    mut command: Command,
    limits: Limits,
    asked: Asked<'_>,
    mut answer: impl FnMut(Call, u64) -> Answer + Send,
) -> Ended {
    let filter = filter(asked);
    let (ours, theirs) = UnixStream::pair().expect("two sockets");
    let socket = theirs.as_raw_fd();
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(move || give_listener(&filter, socket));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let Ok((listener, process)) = take_listener(&ours) else { return BTreeMap::new() };
            answer_all(&listener, process, &mut answer)
        });
        let mut child = command.spawn().expect("a process");
        drop(theirs);
        let mut pipes: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let readers = pipes.each_mut().map(|pipe| {
            let mut pipe = std::mem::replace(pipe, Box::new(std::io::empty()));
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = pipe.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        });
        let status = limits::wait(&mut child, limits);
        let [stdout, stderr] = readers.map(|reader| reader.join().expect("a reader"));
        let made = answers.join().expect("the thread that answers");
        Ended { status, stdout, stderr, made }
    })
}

/// The program of the filter.
fn filter(asked: Asked<'_>) -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let equal = |k: Call| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: k as u32,
    };
    let returns = |action| statement(libc::BPF_RET | libc::BPF_K, action);
    // The number of the call is the first word.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    let (ask, allow) = (libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW);
    match asked {
        Asked::All => {
            LEFT_ALONE.iter().for_each(|&call| program.extend([equal(call), returns(allow)]));
            program.push(returns(ask));
        }
        Asked::These(calls) => {
            let calls = calls.iter().copied().chain([BEGIN.0]);
            calls.for_each(|call| program.extend([equal(call), returns(ask)]));
            program.push(returns(allow));
        }
    }
    program
}

/// In the child: installs the filter and sends its listener.
fn give_listener(filter: &[libc::sock_filter], socket: i32) -> Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program lives during the call. The message is as sendmsg(2) wants it.
    unsafe {
        let process = libc::getpid();
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(Error::last_os_error());
        }
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        let listener = libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) as i32;
        if listener < 0 {
            return Err(Error::last_os_error());
        }
        let mut data = libc::iovec { iov_base: (&raw const process) as *mut _, iov_len: 4 };
        let mut control = [0u64; 4];
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = &mut *libc::CMSG_FIRSTHDR(&raw const message);
        header.cmsg_level = libc::SOL_SOCKET;
        header.cmsg_type = libc::SCM_RIGHTS;
        header.cmsg_len = libc::CMSG_LEN(4) as usize;
        *libc::CMSG_DATA(header).cast::<i32>() = listener;
        if libc::sendmsg(socket, &raw const message, 0) < 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}

/// The listener, and the number of the process.
fn take_listener(socket: &UnixStream) -> Result<(OwnedFd, i32)> {
    let mut process = 0i32;
    let mut data = libc::iovec { iov_base: (&raw mut process).cast(), iov_len: 4 };
    let mut control = [0u64; 4];
    // SAFETY: the message is as recvmsg(2) wants it; the descriptor is ours then.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_CMSG_CLOEXEC;
        if libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) != 4 {
            return Err(Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!header.is_null(), "a message with a descriptor");
        Ok((OwnedFd::from_raw_fd(*libc::CMSG_DATA(header).cast::<i32>()), process))
    }
}

/// `_IOWR('!', 0, struct seccomp_notif)` and `_IOWR('!', 1, struct seccomp_notif_resp)`.
const RECEIVE: libc::Ioctl = 0xc050_2100;
const RESPOND: libc::Ioctl = 0xc018_2101;
const CONTINUE: u32 = 1;

/// Answers until the process and its descendants have ended.
fn answer_all(
    listener: &OwnedFd,
    process: i32,
    answer: &mut impl FnMut(Call, u64) -> Answer,
) -> BTreeMap<Call, u64> {
    let fd = listener.as_raw_fd();
    let mut threads: HashMap<u32, bool> = HashMap::new();
    let (mut before, mut made) = (BEGIN.1, BTreeMap::new());
    loop {
        let mut wanted = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor.
        let ready = unsafe { libc::poll(&raw mut wanted, 1, -1) };
        if ready < 0 {
            continue;
        }
        if wanted.revents & libc::POLLIN == 0 {
            return made;
        }
        // SAFETY: all zeroes is what the call wants.
        let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the call fills the question, or fails: the thread may have been killed.
        if unsafe { libc::ioctl(fd, RECEIVE, &raw mut question) } != 0 {
            continue;
        }
        let own = *threads.entry(question.pid).or_insert_with(|| is_thread(process, question.pid));
        let call = Call::from(question.data.nr);
        let mut given = Answer::GoOn;
        if own && before == 0 && can_fail(&question.data) {
            let count = made.entry(call).or_insert(0);
            given = answer(call, *count);
            *count += 1;
        }
        if own && call == BEGIN.0 {
            before = before.saturating_sub(1);
        }
        let (val, error, flags) = match given {
            Answer::GoOn => (0, 0, CONTINUE),
            Answer::Fail(error) => (0, -error, 0),
            Answer::Return(value) => (value, 0, 0),
        };
        let response = libc::seccomp_notif_resp { id: question.id, val, error, flags };
        // SAFETY: the call reads the response. It fails if the thread has been killed.
        unsafe { libc::ioctl(fd, RESPOND, &raw const response) };
    }
}

/// Whether the call can fail with these arguments: of futex(2) only a wait can, where the arguments
/// are right.
fn can_fail(data: &libc::seccomp_data) -> bool {
    let command = data.args[1] as i32 & libc::FUTEX_CMD_MASK;
    Call::from(data.nr) != libc::SYS_futex
        || matches!(command, libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET)
}

/// Whether the thread belongs to the process.
fn is_thread(process: i32, thread: u32) -> bool {
    std::path::Path::new(&format!("/proc/{process}/task/{thread}")).exists()
}
