//! One measurement: readers against writers on a server of their own, and what is held at rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cortado_near::redis::aio::MultiplexedConnection;
use cortado_near::redis::cmd;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use crate::histogram::Histogram;
use crate::near::client::{self, Client, Limits, Way, direct};
use crate::near::server::Server;
use crate::stale::Reads;
use crate::trace::zipf::{Random, Zipf, scramble};

/// Longer than the last invalidation takes on a busy machine.
const REST: Duration = Duration::from_secs(20);
/// The time between two looks for it.
const PAUSE: Duration = Duration::from_millis(1);
/// Keys that one request writes or reads, before and after the measurement.
const CHUNK: usize = 1000;

/// What is done to a server.
pub struct Work {
    /// The number of tasks that read.
    pub readers: usize,
    /// The number of tasks that write.
    pub writers: usize,
    /// Writes a second of all writers together; as many as the server takes if zero.
    pub writes: u32,
    /// The number of keys.
    pub keys: u32,
    /// Draws keys.
    pub zipf: Zipf,
    /// For how long.
    pub time: Duration,
    /// Where random choices begin.
    pub seed: u64,
    /// How long the caches keep a value, and how many.
    pub limits: Limits,
}

/// What a reader has seen.
pub struct Tally {
    /// Reads, and those that returned a version although a newer one was acknowledged before.
    pub reads: Reads,
    /// Reads that were answered without waiting.
    pub hits: u64,
    /// Reads that returned an older version than this reader had seen.
    pub backwards: u64,
    /// How long reads took.
    pub latency: Histogram,
}

impl Tally {
    /// Returns an empty one.
    pub fn new() -> Self {
        Self { reads: Reads::default(), hits: 0, backwards: 0, latency: Histogram::new() }
    }

    /// Counts a read. `newest` is the newest version of its key that the reader has seen.
    fn note(&mut self, read: &Read, newest: &mut u64) {
        self.reads.note(read.found, read.least);
        self.hits += u64::from(!read.has_waited);
        self.latency.record(read.time);
        if let Some(version) = read.found {
            self.backwards += u64::from(version < *newest);
            *newest = version.max(*newest);
        }
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        self.reads.merge(other.reads);
        self.hits += other.hits;
        self.backwards += other.backwards;
        self.latency.merge(&other.latency);
    }
}

/// A single read.
struct Read {
    /// The version that it returned.
    found: Option<u64>,
    /// The version whose write was acknowledged before it began.
    least: u64,
    has_waited: bool,
    time: Duration,
}

/// What a cache holds when nothing is written any more and the last invalidation has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// The entries.
    pub held: u64,
    /// Those that differ from what the server has.
    pub stale: u64,
}

impl Rest {
    fn note(&mut self, held: Option<u64>, truth: Option<u64>) {
        self.held += u64::from(held.is_some());
        self.stale += u64::from(held.is_some() && held != truth);
    }
}

/// What a measurement has found.
pub struct Outcome {
    /// What all readers have seen.
    pub tally: Tally,
    /// How long they read.
    pub elapsed: Duration,
    /// The requests for values.
    pub round_trips: u64,
    /// The writes that were acknowledged.
    pub writes: u64,
    /// What was held at rest.
    pub rest: Rest,
    /// What the server calls itself.
    pub server: String,
}

/// Starts a server, and measures one way to read it.
pub fn measure(way: Way, work: &Arc<Work>, round: usize) -> Result<Outcome> {
    let server = Server::start()?;
    let runtime = Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(drive(way, work, round, &server))
}

async fn drive(way: Way, work: &Arc<Work>, round: usize, server: &Server) -> Result<Outcome> {
    let url = server.url();
    let mut past = direct(&url).await?;
    fill(&mut past, work.keys).await?;
    let client = Client::connect(way, &url, &work.limits).await?;
    let shared = Arc::new(Shared {
        work: work.clone(),
        // As they were filled.
        written: (0..work.keys).map(|_| AtomicU64::new(1)).collect(),
        writers_stop: AtomicBool::new(false),
        readers_stop: AtomicBool::new(false),
    });
    let mut connections = Vec::new();
    for _ in 0..work.writers {
        connections.push(direct(&url).await?);
    }
    let random = |task: usize| {
        // Each round and each task has a sequence of its own, the same one for all ways.
        Random::new(scramble(work.seed ^ scramble(((round as u64) << 32) | task as u64)))
    };
    let begin = Instant::now();
    let readers: Vec<_> = (0..work.readers)
        .map(|task| tokio::spawn(read(client.clone(), shared.clone(), random(task))))
        .collect();
    let writers: Vec<_> = (work.readers..)
        .zip(connections)
        .map(|(task, connection)| tokio::spawn(write(connection, shared.clone(), random(task))))
        .collect();
    sleep(work.time).await;
    shared.writers_stop.store(true, Ordering::Relaxed);
    let mut writes = 0;
    for writer in writers {
        writes += writer.await??;
    }
    // Relaxed, as above: what the tasks return is handed over when they end.
    shared.readers_stop.store(true, Ordering::Relaxed);
    let mut tally = Tally::new();
    for reader in readers {
        tally.merge(&reader.await??);
    }
    let elapsed = begin.elapsed();
    ensure!(tally.reads.lost == 0, "{}: keys of the server were not found", way.name());
    let round_trips = client.round_trips();
    if client.is_tracked() {
        let rest = timeout(REST, wait_for_invalidations(&client, &mut past, work.keys)).await;
        rest.context("the last invalidation does not arrive")??;
    }
    let rest = rest(&client, &mut past, work.keys).await?;
    Ok(Outcome { tally, elapsed, round_trips, writes, rest, server: server.name().to_owned() })
}

struct Shared {
    work: Arc<Work>,
    /// The newest version of each key whose write was acknowledged.
    written: Vec<AtomicU64>,
    writers_stop: AtomicBool,
    readers_stop: AtomicBool,
}

/// Reads until stopped.
async fn read(client: Client, shared: Arc<Shared>, mut random: Random) -> Result<Tally> {
    let mut tally = Tally::new();
    let mut newest = vec![0; shared.written.len()];
    while !shared.readers_stop.load(Ordering::Relaxed) {
        let key = shared.work.zipf.draw(&mut random) as usize;
        // Acquire: pairs with the Release store of a writer, so this version was acknowledged
        // before the read that follows.
        let least = shared.written[key].load(Ordering::Acquire);
        let begin = Instant::now();
        let (found, has_waited) = client::watched(client.get(key as u64)).await;
        let read = Read { found: found?, least, has_waited, time: begin.elapsed() };
        tally.note(&read, &mut newest[key]);
        // A hit does not wait, and the runtime has other tasks: those that read connections.
        tokio::task::yield_now().await;
    }
    Ok(tally)
}

/// Increments keys until stopped; returns how often.
async fn write(
    mut connection: MultiplexedConnection,
    shared: Arc<Shared>,
    mut random: Random,
) -> Result<u64> {
    let Work { writers, writes: rate, .. } = *shared.work;
    let begin = Instant::now();
    let mut writes = 0;
    loop {
        if rate > 0 {
            // A writer that is not due before the end does not sleep beyond it.
            let next = due(writes + 1, writers, rate).min(shared.work.time);
            sleep(next.saturating_sub(begin.elapsed())).await;
        }
        if shared.writers_stop.load(Ordering::Relaxed) || begin.elapsed() >= shared.work.time {
            return Ok(writes);
        }
        let key = shared.work.zipf.draw(&mut random);
        let name = client::name(key.into());
        let version: u64 = cmd("INCR").arg(name).query_async(&mut connection).await?;
        shared.written[key as usize].fetch_max(version, Ordering::Release);
        writes += 1;
    }
}

/// Returns when a writer does this one of its writes, counted from 1.
fn due(writes: u64, writers: usize, rate: u32) -> Duration {
    Duration::from_secs_f64(writes as f64 * writers as f64 / f64::from(rate))
}

/// The key that is written last, beyond those that readers draw.
fn barrier(keys: u32) -> u64 {
    keys.into()
}

/// Writes the first version of all keys.
async fn fill(past: &mut MultiplexedConnection, keys: u32) -> Result<()> {
    let names: Vec<_> = (0..=barrier(keys)).map(client::name).collect();
    for names in names.chunks(CHUNK) {
        let mut set = cmd("MSET");
        names.iter().for_each(|name| _ = set.arg(name).arg(1));
        set.query_async::<()>(past).await?;
    }
    Ok(())
}

/// Waits until all invalidations have arrived: they come in order, so until that of one more write.
async fn wait_for_invalidations(
    client: &Client,
    past: &mut MultiplexedConnection,
    keys: u32,
) -> Result<()> {
    let key = barrier(keys);
    while client.peek(key).await != Some(1) {
        client.get(key).await?;
    }
    cmd("SET").arg(client::name(key)).arg(2).query_async::<()>(past).await?;
    while client.peek(key).await.is_some() {
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Compares what is held with what the server has.
async fn rest(client: &Client, past: &mut MultiplexedConnection, keys: u32) -> Result<Rest> {
    let mut rest = Rest::default();
    let all: Vec<u64> = (0..keys.into()).collect();
    for keys in all.chunks(CHUNK) {
        let mut get = cmd("MGET");
        keys.iter().for_each(|&key| _ = get.arg(client::name(key)));
        let truths: Vec<Option<u64>> = get.query_async(past).await?;
        for (&key, truth) in keys.iter().zip(truths) {
            rest.note(client.peek(key).await, truth);
        }
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: u64, least: u64, has_waited: bool) -> Read {
        Read { found: Some(version), least, has_waited, time: Duration::from_micros(1) }
    }

    #[test]
    fn older_version_than_seen_is_backwards() {
        let mut tally = Tally::new();
        let mut newest = [0; 2];
        for (version, key) in [(3, 0), (2, 1), (3, 0), (2, 0), (3, 0)] {
            tally.note(&read(version, 0, false), &mut newest[key]);
        }
        assert_eq!((tally.backwards, newest), (1, [3, 2]));
    }

    #[test]
    fn hits_and_stale_reads_are_counted_apart() {
        let mut tally = Tally::new();
        let mut newest = 0;
        for (version, has_waited) in [(5, true), (5, false), (6, false), (4, true)] {
            tally.note(&read(version, 5, has_waited), &mut newest);
        }
        assert_eq!((tally.hits, tally.backwards), (2, 1));
        assert_eq!(tally.reads, Reads { all: 4, stale: 1, lost: 0 });
        assert_eq!(tally.latency.count(), 4);
        let mut all = Tally::new();
        all.merge(&tally);
        all.merge(&tally);
        assert_eq!((all.reads.all, all.reads.stale, all.hits, all.backwards), (8, 2, 4, 2));
    }

    #[test]
    fn missing_entry_is_not_stale() {
        let mut rest = Rest::default();
        for (held, truth) in [(Some(2), Some(2)), (None, Some(2)), (Some(1), Some(2))] {
            rest.note(held, truth);
        }
        assert_eq!(rest, Rest { held: 2, stale: 1 });
    }

    #[test]
    fn writers_share_their_rate() {
        assert_eq!(due(1000, 4, 4000), Duration::from_secs(1));
        assert_eq!(due(0, 4, 4000), Duration::ZERO);
    }
}
