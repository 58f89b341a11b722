//! A page cache in front of a file: pages of different sizes share a budget in bytes.
//!
//! `cargo run --example page_cache`

use std::{
    error::Error,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use cortado::{Cache, Maintenance};

const PAGES: usize = 1_000;
const BUDGET: u64 = 512 << 10;
const THREADS: u64 = 4;
/// Each thread reads this many pages in each round.
const READS: usize = 1_000;
const ROUNDS: u64 = 10;

/// The pages of the file. The first is larger than the budget.
fn page_sizes() -> impl Iterator<Item = usize> {
    let others = (1..PAGES).map(|page| 256 << (page.wrapping_mul(0x9e37_79b9) >> 8 & 5));
    [2 * BUDGET as usize].into_iter().chain(others)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut ranges = Vec::new();
    let mut end = 0;
    for size in page_sizes() {
        ranges.push(end..end + size);
        end += size;
    }
    let mut random = Random(1);
    let content: Vec<u8> = (0..end).map(|_| random.next() as u8).collect();
    let path = std::env::temp_dir().join(format!("cortado-pages-{}", std::process::id()));
    fs::write(&path, &content)?;
    let result = serve(&path, &content, &ranges);
    fs::remove_file(&path)?;
    result
}

/// Reads pages from several threads, and compares each with the content of the file.
fn serve(path: &Path, content: &[u8], ranges: &[Range<usize>]) -> Result<(), Box<dyn Error>> {
    let pages = Cache::<usize, Box<[u8]>>::builder()
        .max_cost(BUDGET)
        .cost_of(|_, page| page.len() as u64)
        .metrics(true)
        // Without a thread of its own the cache changes only while pages are read, and the sums
        // between the rounds are exact.
        .maintenance(Maintenance::Manual)
        .build()?;
    let file_reads = AtomicU64::new(0);
    let read = |file: &mut File, page: usize| -> io::Result<()> {
        // Of all threads that miss a page, one reads it from the file. A value that the cache does
        // not admit is returned all the same.
        let value = pages.try_get_or_insert_with(page, || {
            file_reads.fetch_add(1, Relaxed);
            read_page(file, &ranges[page])
        })?;
        assert!(**value == content[ranges[page].clone()], "page {page} is that of the file");
        assert!(pages.cost() <= BUDGET, "at no moment is there more");
        Ok(())
    };

    let held = || pages.pin().values().map(|page| page.len() as u64).sum::<u64>();
    for round in 0..ROUNDS {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let mut random = Random(round * THREADS + thread);
                    let read = &read;
                    scope.spawn(move || {
                        let mut file = File::open(path)?;
                        (0..READS).try_for_each(|_| read(&mut file, random.page()))
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
        })?;
        assert!(held() <= BUDGET, "no more bytes are held");
        assert_eq!(held(), pages.cost(), "what is held is charged");
    }

    let metrics = pages.metrics();
    assert_eq!(metrics.loads, file_reads.load(Relaxed));
    assert_eq!(metrics.hits + metrics.misses + metrics.coalesced, ROUNDS * THREADS * READS as u64);
    let share = BUDGET as f64 / content[ranges[0].end..].len() as f64;
    assert!(metrics.hit_ratio() > 2.0 * share, "popular pages are kept");
    println!("{} pages, {} of {BUDGET} bytes", pages.len(), pages.cost());
    println!(
        "the budget is {:.1} % of the bytes, {:.1} % of the reads are hits",
        100.0 * share,
        100.0 * metrics.hit_ratio()
    );

    // A page that can never fit is read, evicts nothing and is not kept.
    let evictions = pages.metrics().evictions;
    read(&mut File::open(path)?, 0)?;
    assert!(!pages.contains_key(&0));
    assert_eq!(pages.metrics().evictions, evictions);

    // A lower budget holds when the call returns.
    pages.set_max_cost(BUDGET / 4);
    assert!(held() <= BUDGET / 4 && pages.cost() <= BUDGET / 4);
    println!("{} pages, {} of {} bytes", pages.len(), pages.cost(), pages.max_cost());
    Ok(())
}

fn read_page(file: &mut File, range: &Range<usize>) -> io::Result<Box<[u8]>> {
    let mut page = vec![0; range.len()].into_boxed_slice();
    file.seek(SeekFrom::Start(range.start as u64))?;
    file.read_exact(&mut page)?;
    Ok(page)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0 >> 32
    }

    /// Returns a page other than page 0; page n with a probability in proportion to 1/n.
    fn page(&mut self) -> usize {
        (PAGES as f64).powf(self.next() as f64 / (1u64 << 32) as f64) as usize
    }
}
