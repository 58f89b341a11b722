//! Counts the cache lines that one operation writes, those of other threads apart from its own.
//!
//! # How
//!
//! All memory that the process may write, but for stacks, is made read-only while one thread does
//! one operation. Each write then faults: the handler notes the line, opens the page, and lets
//! the processor do this one instruction; the trap after it closes the page again. A locked
//! instruction counts whatever it stores, and so does a store of what was there before, since
//! both take the line away from other cores.
//!
//! Two threads do the same operations, one after the other, while the other waits. A line that
//! only one of the two writes, and comes back to, is its own: a counter or a slot of the thread.
//! All others are shared, and hot if both threads come back to them whatever the key is. Writes to
//! the stack and to thread-local variables are not seen at all.
//!
//! It runs in a process of its own, for `x86_64` on Linux; caches with a thread of their own, such
//! as stretto, are left out, because it would write between.

use std::collections::HashMap;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cells;
use crate::peers::Kind;

/// The operations that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Op {
    /// A get that hits.
    Hit,
    /// The same get again, right after the first.
    Again,
    /// An insert of a key that is there.
    Replace,
    /// An insert of a new key into a full cache.
    Insert,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Again => "again",
            Self::Replace => "replace",
            Self::Insert => "insert",
        }
    }
}

/// What is counted.
#[derive(Args, Clone, Debug)]
pub struct LinesCell {
    /// The cache.
    #[arg(long)]
    pub cache: Kind,
    /// The operation.
    #[arg(long)]
    pub op: Op,
}

/// How many lines an operation writes, in the mean.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Lines {
    /// Shared ones.
    pub shared: f64,
    /// Of these, the ones that both threads write again and again, whatever the key is.
    pub hot: f64,
    /// The thread's own.
    pub own: f64,
}

impl LinesCell {
    /// Counts in a process of its own.
    pub fn spawn(&self) -> Result<Lines> {
        cells::ask(&[
            "lines".to_owned(),
            format!("--cache={}", self.cache.name()),
            format!("--op={}", self.op.name()),
        ])
    }

    /// Counts in this process.
    pub fn measure(&self) -> Result<Lines> {
        imp::measure(self)
    }
}

/// Returns whether lines can be counted here, and of this cache.
pub fn is_countable(kind: Kind) -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64"))
        && kind.is_bounded()
        && kind != Kind::Stretto
}

/// A line is written again and again if at least one in so many operations of a thread does it.
const COMES_BACK: usize = 20;

/// Tells the lines of two threads apart; for each thread, the lines of each of its operations.
#[cfg_attr(not(all(target_os = "linux", target_arch = "x86_64")), allow(dead_code))]
fn told_apart(threads: &[Vec<Vec<usize>>; 2]) -> Lines {
    let counts = threads.each_ref().map(|operations| {
        let mut counts: HashMap<usize, usize> = HashMap::new();
        for line in operations.iter().flatten() {
            *counts.entry(*line).or_default() += 1;
        }
        counts
    });
    let comes_back = |thread: usize, line: &usize| {
        let least = threads[thread].len().div_ceil(COMES_BACK).max(2);
        counts[thread].get(line).is_some_and(|&count| count >= least)
    };
    let (mut shared, mut hot, mut own) = (0, 0, 0);
    for (thread, operations) in threads.iter().enumerate() {
        for line in operations.iter().flatten() {
            let (mine, others) = (comes_back(thread, line), comes_back(1 - thread, line));
            if mine && !counts[1 - thread].contains_key(line) {
                own += 1;
            } else {
                shared += 1;
                hot += usize::from(mine && others);
            }
        }
    }
    let operations = threads.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    let mean = |count: usize| count as f64 / operations;
    Lines { shared: mean(shared), hot: mean(hot), own: mean(own) }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod imp {
    use anyhow::{Result, bail};

    use super::{Lines, LinesCell};

    pub fn measure(_: &LinesCell) -> Result<Lines> {
        bail!("lines are counted for x86_64 on Linux only")
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(unsafe_code)]
mod imp {
    use std::ffi::c_void;
    use std::fs;
    use std::ptr;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    use anyhow::{Context as _, Result, bail};

    use super::{Lines, LinesCell, Op, told_apart};
    use crate::peers::{Build, Peer, Settings, Task};
    use crate::threads;
    use crate::workload::Fresh;

    const CAPACITY: usize = 4_096;
    /// Operations that are counted, of each thread, and those before them.
    const OPERATIONS: usize = 200;
    const WARM_UP: usize = 64;
    const PAGE: usize = 4_096;
    const LINE: usize = 64;
    /// The trap flag of the processor: a trap follows the next instruction.
    const TRAP_FLAG: i64 = 0x100;
    const MAX_RANGES: usize = 512;
    const MAX_WRITES: usize = 1 << 16;
    /// Pages that one instruction can write.
    const MAX_OPEN: usize = 8;

    /// What the handler needs. It lies in pages of its own, which are never closed.
    #[repr(C)]
    struct Recorder {
        ranges: [[AtomicUsize; 2]; MAX_RANGES],
        range_count: AtomicUsize,
        open: [AtomicUsize; MAX_OPEN],
        open_count: AtomicUsize,
        writes: [AtomicUsize; MAX_WRITES],
        write_count: AtomicUsize,
    }

    /// Null until [`Recorder::install`]; read by the handler.
    static RECORDER: AtomicPtr<Recorder> = AtomicPtr::new(ptr::null_mut());

    pub fn measure(cell: &LinesCell) -> Result<Lines> {
        if !super::is_countable(cell.cache) {
            bail!("the lines of {} cannot be counted", cell.cache.name());
        }
        cell.cache.dispatch::<u64, _, _>(cell)
    }

    impl Task<u64> for &LinesCell {
        type Output = Result<Lines>;

        fn run<P: Peer<u64>>(self, build: Build<P>) -> Result<Lines> {
            // As for a replay: cortado then has no thread of its own, which would write between.
            let settings = Settings { replay: true, ..Settings::for_entries(CAPACITY, 1) };
            let peer = build(&settings)?;
            let keys = Fresh::new();
            // More than the capacity where new keys are to evict; all of them otherwise there.
            let filled = if self.op == Op::Insert { CAPACITY * 2 } else { CAPACITY / 2 };
            (0..filled as u64).for_each(|i| peer.insert(keys.key(i), i));
            peer.settle();
            let recorder = Recorder::install()?;
            let turn = Barrier::new(2);
            let work = |i| {
                let first = i == 0;
                let fresh = Fresh::new();
                let operation = |i: usize| {
                    // Far apart, so that two operations have no bucket in common by their keys.
                    let key = keys.key((i * 7 % (CAPACITY / 2)) as u64);
                    match self.op {
                        Op::Hit | Op::Again => drop(std::hint::black_box(peer.get(key))),
                        Op::Replace => peer.insert(key, i as u64),
                        Op::Insert => peer.insert(fresh.key(i as u64), i as u64),
                    }
                };
                (0..WARM_UP).for_each(operation);
                turn.wait();
                if !first {
                    turn.wait();
                }
                let lines = (WARM_UP..WARM_UP + OPERATIONS)
                    .map(|i| {
                        if self.op == Op::Again {
                            operation(i);
                        }
                        recorder.record(|| operation(i))
                    })
                    .collect::<Result<Vec<_>>>();
                if first {
                    turn.wait();
                }
                // Neither ends before the other is done, or it would hand over what it owns.
                turn.wait();
                lines
            };
            let [first, second] = threads::run(2, &work).try_into().expect("there are two threads");
            Ok(told_apart(&[first?, second?]))
        }
    }

    impl Recorder {
        /// Makes the one recorder of this process, and sets the handlers.
        fn install() -> Result<&'static Self> {
            let size = size_of::<Self>().next_multiple_of(PAGE);
            // SAFETY: a new mapping of no file, at an address of the system's choice.
            let memory = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    size,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            if memory == libc::MAP_FAILED {
                bail!("there is no memory to note lines in");
            }
            let recorder = memory.cast::<Self>();
            RECORDER.store(recorder, Ordering::SeqCst);
            for (signal, handler) in [
                (libc::SIGSEGV, on_write as *const () as usize),
                (libc::SIGTRAP, on_step as *const () as usize),
            ] {
                // SAFETY: an action of zeros is one with no flags and an empty mask.
                let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
                action.sa_sigaction = handler;
                action.sa_flags = libc::SA_SIGINFO;
                // SAFETY: the action is filled in; the handlers touch the stack and the recorder
                // only, and call nothing but `mprotect`.
                if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
                    bail!("faults cannot be handled here");
                }
            }
            // SAFETY: it is mapped, aligned to a page, all zeros, which are valid atomics, and
            // stays for ever.
            Ok(unsafe { &*recorder })
        }

        /// Does an operation and returns the lines that it wrote, each once.
        fn record(&self, operation: impl FnOnce()) -> Result<Vec<usize>> {
            let ranges = writable(ptr::from_ref(self) as usize)?;
            if ranges.len() > MAX_RANGES {
                bail!("there are {} ranges of memory, too many to watch", ranges.len());
            }
            for (slot, range) in self.ranges.iter().zip(&ranges) {
                slot[0].store(range.0, Ordering::SeqCst);
                slot[1].store(range.1, Ordering::SeqCst);
            }
            self.write_count.store(0, Ordering::SeqCst);
            self.range_count.store(ranges.len(), Ordering::SeqCst);
            // From here to the opening nothing may be written but the stack and the recorder, or
            // it is counted.
            self.protect(libc::PROT_READ);
            operation();
            self.protect(libc::PROT_READ | libc::PROT_WRITE);
            self.range_count.store(0, Ordering::SeqCst);
            let count = self.write_count.load(Ordering::SeqCst);
            if count > MAX_WRITES {
                bail!("one operation wrote {count} times, too often to note");
            }
            let writes = self.writes[..count].iter();
            let mut lines: Vec<_> =
                writes.map(|write| write.load(Ordering::SeqCst) / LINE).collect();
            lines.sort_unstable();
            lines.dedup();
            Ok(lines)
        }

        fn protect(&self, protection: i32) {
            for range in &self.ranges[..self.range_count.load(Ordering::SeqCst)] {
                let [start, end] = range.each_ref().map(|end| end.load(Ordering::SeqCst));
                // SAFETY: the range is a mapping of this process that was writable; the handler
                // helps each thread that writes to it while it is not.
                unsafe { libc::mprotect(start as *mut c_void, end - start, protection) };
            }
        }

        fn is_watched(&self, address: usize) -> bool {
            let ranges = &self.ranges[..self.range_count.load(Ordering::SeqCst)];
            ranges.iter().any(|range| {
                (range[0].load(Ordering::SeqCst)..range[1].load(Ordering::SeqCst))
                    .contains(&address)
            })
        }
    }

    /// Notes a write, opens its page, and has the processor trap after the instruction.
    extern "C" fn on_write(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
        let recorder = RECORDER.load(Ordering::SeqCst);
        // SAFETY: the recorder is set before the handler, and stays.
        let recorder = unsafe { &*recorder };
        // SAFETY: the system hands a valid description over to a handler with `SA_SIGINFO`.
        let info = unsafe { &*info };
        // SAFETY: it describes a fault, so it has an address.
        let address = unsafe { info.si_addr() } as usize;
        let open = recorder.open_count.load(Ordering::SeqCst);
        if !recorder.is_watched(address) || open >= MAX_OPEN {
            // Not ours: the instruction faults again and ends the process, as it would without.
            // SAFETY: the default action needs no handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            return;
        }
        let count = recorder.write_count.fetch_add(1, Ordering::SeqCst);
        if let Some(write) = recorder.writes.get(count) {
            write.store(address, Ordering::SeqCst);
        }
        let page = address & !(PAGE - 1);
        recorder.open[open].store(page, Ordering::SeqCst);
        recorder.open_count.store(open + 1, Ordering::SeqCst);
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the page is one of a watched mapping, which was writable.
        unsafe { libc::mprotect(page as *mut c_void, PAGE, writable) };
        // SAFETY: the system hands the registers over; the flags are restored from them.
        unsafe { set_trap(context, true) };
    }

    /// Closes the pages that were opened for the instruction that is done.
    extern "C" fn on_step(_: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
        let recorder = RECORDER.load(Ordering::SeqCst);
        // SAFETY: the recorder is set before the handler, and stays.
        let recorder = unsafe { &*recorder };
        let open = recorder.open_count.swap(0, Ordering::SeqCst);
        for page in &recorder.open[..open.min(MAX_OPEN)] {
            let page = page.load(Ordering::SeqCst);
            // SAFETY: the page was opened by the other handler and is one of a watched mapping.
            unsafe { libc::mprotect(page as *mut c_void, PAGE, libc::PROT_READ) };
        }
        // SAFETY: the system hands the registers over; the flags are restored from them.
        unsafe { set_trap(context, false) };
    }

    /// # Safety
    ///
    /// The context is that of a running handler with `SA_SIGINFO`.
    unsafe fn set_trap(context: *mut c_void, is_on: bool) {
        // SAFETY: the caller's promise; the handler is the only one that has it.
        let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
        let flags = &mut context.uc_mcontext.gregs[libc::REG_EFL as usize];
        if is_on {
            *flags |= TRAP_FLAG;
        } else {
            *flags &= !TRAP_FLAG;
        }
    }

    /// Returns the ranges of memory that are written by the process, but for stacks and for the
    /// mapping that holds `but`.
    fn writable(but: usize) -> Result<Vec<(usize, usize)>> {
        let maps = fs::read_to_string("/proc/self/maps").context("the mappings are not told")?;
        let program = std::env::current_exe().context("this program cannot find itself")?;
        Ok(watched(&maps, &program.to_string_lossy(), but))
    }

    /// Returns the ranges to watch, by the system's list of mappings: the heap, other memory of no
    /// file, and the program's own variables. A stack is preceded by a page that cannot be
    /// touched; the variables of other libraries are left out, since the C library's are written
    /// by the handler's calls, too.
    fn watched(maps: &str, program: &str, but: usize) -> Vec<(usize, usize)> {
        let mut ranges = Vec::new();
        let mut guard_end = 0;
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
            let Some((start, end)) = range.split_once('-') else { continue };
            let address = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            let (start, end) = (address(start), address(end));
            let name = words.nth(3).unwrap_or("");
            let is_stack = name == "[stack]" || (name.is_empty() && guard_end == start);
            let is_ours = name.is_empty() || name == "[heap]" || name == program;
            if rights == "---p" {
                guard_end = if end - start <= 16 * PAGE { end } else { 0 };
            }
            if rights == "rw-p" && is_ours && !is_stack && !(start..end).contains(&but) {
                ranges.push((start, end));
            }
        }
        ranges
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::peers::Kind;

        #[test]
        fn stacks_and_other_libraries_are_not_watched() {
            let maps = "\
55d000000000-55d000001000 r-xp 00000000 fe:00 1 /bin/tool
55d000001000-55d000002000 rw-p 00000000 fe:00 1 /bin/tool
55d000002000-55d000003000 rw-p 00000000 00:00 0
55d100000000-55d100021000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000001000 ---p 00000000 00:00 0
7f0000001000-7f0000201000 rw-p 00000000 00:00 0
7f1000000000-7f1000021000 rw-p 00000000 00:00 0
7f1000021000-7f1004000000 ---p 00000000 00:00 0
7f1004000000-7f1004021000 rw-p 00000000 00:00 0
7f2000000000-7f2000002000 rw-p 00000000 fe:00 2 /lib/libc.so.6
7f3000000000-7f3000002000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
";
            let starts: Vec<usize> =
                watched(maps, "/bin/tool", 0x7f30_0000_1000).iter().map(|range| range.0).collect();
            assert_eq!(
                starts,
                [
                    0x55d0_0000_1000,
                    0x55d0_0000_2000,
                    0x55d1_0000_0000,
                    0x7f10_0000_0000,
                    0x7f10_0400_0000
                ]
            );
        }

        #[test]
        fn kinds_with_threads_of_their_own_are_left_out() {
            assert!(measure(&LinesCell { cache: Kind::Stretto, op: Op::Hit }).is_err());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_line_is_one_that_the_other_never_writes() {
        // Line 1 is the first thread's, 2 the second's; 3 is both's; 10 to 13 are written once.
        let first = vec![vec![1, 3, 10], vec![1, 3, 11]];
        let second = vec![vec![2, 3, 12], vec![2, 3, 13]];
        let lines = told_apart(&[first, second]);
        assert_eq!(lines, Lines { shared: 2.0, hot: 1.0, own: 1.0 });
    }
}
