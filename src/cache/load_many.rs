//! Loading of many keys with one call of a loader; each key is still loaded by one caller at a
//! time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    future::{Future, poll_fn},
    hash::{BuildHasher, Hash},
    pin::pin,
};

use super::{
    Cache, FillGuard,
    load::{Look, Next, Shared, Waiter, own_key},
    loader::OwnedKey,
};
use crate::{
    engine::Loaded,
    singleflight::{Caller, Entered, WaitOutcome},
};

/// The indices of a key among the keys that were asked for.
type Places = Vec<usize>;

/// A load of many keys.
///
/// It never waits for another caller while it holds the right to load a key: it loads the keys that
/// it leads first. So two bulk loads of the same keys cannot wait for each other.
///
/// Nor does it wait for itself: while it holds such rights it has entered all these loads, except
/// where a task yields. So no sweep runs in between, whose listeners might ask for one of the keys,
/// and other user code that does so gets a panic.
struct Bulk<'a, K, V, S> {
    cache: &'a Cache<K, V, S>,
    caller: Caller,
    values: Vec<Option<V>>,
    /// The hashes of all keys.
    asked: HashSet<u64>,
    /// The keys that this caller loads.
    mine: Vec<(Places, FillGuard<'a, K, V, S>)>,
    /// The keys that other callers load.
    theirs: VecDeque<Waiting<'a, K, V, S>>,
}

struct Waiting<'a, K, V, S> {
    places: Places,
    hash: u64,
    key: K,
    waiter: Waiter<'a, K, V, S>,
}

impl<'a, K, V, S> Bulk<'a, K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    /// Looks up all keys, and claims the missing ones that no other caller loads.
    fn new(cache: &'a Cache<K, V, S>, keys: impl IntoIterator<Item = K>, caller: Caller) -> Self {
        let mut unique: Vec<(Places, u64, K)> = Vec::new();
        let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut count = 0;
        for (place, key) in keys.into_iter().enumerate() {
            count += 1;
            let hash = cache.engine.hash(&key);
            let same = by_hash.entry(hash).or_default();
            if let Some(&first) = same.iter().find(|&&i| unique[i].2 == key) {
                unique[first].0.push(place);
                continue;
            }
            same.push(unique.len());
            unique.push((vec![place], hash, key));
        }
        let (asked, values) = (by_hash.into_keys().collect(), vec![None; count]);
        let (mine, theirs) = (Vec::new(), VecDeque::new());
        let mut bulk = Self { cache, caller, values, asked, mine, theirs };
        let mut entered = Vec::new();
        for (places, hash, key) in unique {
            match cache.look(hash, OwnedKey(key), false) {
                Look::Hit(value) => bulk.note(&places, &value),
                Look::Absent(key) => bulk.join(places, hash, key, true),
                Look::Refresh(_) => unreachable!("it was not asked for"),
            }
            entered.extend(bulk.mine[entered.len()..].iter().map(|(_, guard)| guard.enter()));
        }
        bulk
    }

    /// Marks the loads as run by this thread.
    fn enter(&self) -> Vec<Option<Entered>> {
        self.mine.iter().map(|(_, guard)| guard.enter()).collect()
    }

    /// Claims a key, or follows the caller that loads it.
    fn join(&mut self, places: Places, hash: u64, key: K, is_first: bool) {
        match self.cache.join_load(hash, key, is_first, self.caller) {
            Next::Return(value) => self.note(&places, &value),
            Next::Load(guard) => self.mine.push((places, guard)),
            Next::Follow(key, waiter) => {
                self.theirs.push_back(Waiting { places, hash, key, waiter });
            }
            Next::Fail(_) => own_key(),
        }
    }

    fn note(&mut self, places: &[usize], value: &V) {
        for &place in places {
            self.values[place] = Some(value.clone());
        }
    }

    /// Inserts the values that a loader returned. Keys for which it returned no value stay missing.
    ///
    /// Values for other keys are inserted last, when this caller leads no load.
    fn insert(&mut self, loaded: Vec<(K, V)>, entered: Vec<Option<Entered>>) {
        /// A load with its value. The thread drops `entered` before the load ends.
        struct Mine<'a, K, V, S> {
            entered: Option<Entered>,
            places: Places,
            guard: FillGuard<'a, K, V, S>,
            value: Option<V>,
        }
        let mine = std::mem::take(&mut self.mine).into_iter().zip(entered);
        let mine =
            mine.map(|((places, guard), entered)| Mine { entered, places, guard, value: None });
        let mut mine: Vec<_> = mine.collect();
        let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, load) in mine.iter().enumerate() {
            by_hash.entry(load.guard.hash()).or_default().push(index);
        }
        let mut others = Vec::new();
        for (key, value) in loaded {
            let hash = self.cache.engine.hash(&key);
            let mut same = by_hash.get(&hash).into_iter().flatten();
            match same.find(|&&index| *mine[index].guard.key() == key) {
                Some(&index) => _ = mine[index].value.get_or_insert(value),
                // The key was found, or another caller loads it, or this one has loaded it before.
                // (A key with the hash of an asked one is treated the same way: only a value that
                // was not asked for is lost.)
                None if self.asked.contains(&hash) => {}
                None => others.push((key, value)),
            }
        }
        for Mine { entered, places, guard, value } in mine {
            drop(entered);
            if let Some(value) = value {
                let value = guard.fill(value);
                self.note(&places, &value);
            }
        }
        for (key, value) in others {
            drop(self.cache.insert_if_absent(key, value));
        }
        self.cache.engine.sweep_if_due();
    }

    /// Continues with a key after the load of another caller has ended, with a value or without.
    fn arrive(&mut self, waiting: Waiting<'a, K, V, S>, waited: WaitOutcome<'a, K, Loaded>) {
        let Waiting { places, hash, key, mut waiter } = waiting;
        match waited {
            WaitOutcome::Completed => match waiter.share(&key) {
                Shared::Value(value) => self.note(&places, &value),
                Shared::Failed(_) | Shared::Nothing => self.join(places, hash, key, false),
            },
            WaitOutcome::Lead(leader) => {
                self.mine.push((places, self.cache.guard(hash, leader, None)));
            }
            WaitOutcome::TimedOut => unreachable!("no time is set"),
        }
    }
}

/// # Loading many keys
///
/// One call of the loader loads all missing keys. Each key is still loaded by one caller at a time:
/// the call waits for keys that another caller already loads, and callers that ask for one of its
/// keys, alone or with others, wait for this load.
///
/// The result has a value for each key, in the order of the keys, and `None` where the loader
/// returned no value. Values for other keys are inserted too, unless such a key has an entry by
/// then, which may be newer. If the loader returns two values for one key, the first is used.
///
/// If the load of another caller fails, the loader is called again for the keys concerned. It is
/// not called if no key is missing.
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    /// Returns clones of the values of many keys, and loads the missing ones with `load`.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::new(10);
    /// cache.insert(1, "one");
    /// let load = |missing: &[&u32]| {
    ///     assert_eq!(missing, [&2, &3]);
    ///     [(2, "two")]
    /// };
    /// assert_eq!(cache.get_or_insert_many([1, 2, 3], load), [Some("one"), Some("two"), None]);
    /// ```
    #[doc(alias("get_all", "bulk_get"))]
    pub fn get_or_insert_many<I>(
        &self,
        keys: impl IntoIterator<Item = K>,
        mut load: impl FnMut(&[&K]) -> I,
    ) -> Vec<Option<V>>
    where
        I: IntoIterator<Item = (K, V)>,
    {
        let Ok(values) =
            self.try_get_or_insert_many(keys, |missing| Ok::<_, Infallible>(load(missing)));
        values
    }

    /// Like [`get_or_insert_many`](Self::get_or_insert_many), but with a loader that may fail.
    ///
    /// # Errors
    ///
    /// Returns the error of `load`. The keys that it was to load stay missing, and callers that
    /// wait for them run their own loaders.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// let cache = cortado::Cache::<u32, u32>::new(10);
    /// let load = |_: &[&u32]| Err::<[(u32, u32); 0], _>("the backend is down");
    /// assert_eq!(cache.try_get_or_insert_many([1, 2], load), Err("the backend is down"));
    /// ```
    pub fn try_get_or_insert_many<I, E>(
        &self,
        keys: impl IntoIterator<Item = K>,
        mut load: impl FnMut(&[&K]) -> Result<I, E>,
    ) -> Result<Vec<Option<V>>, E>
    where
        I: IntoIterator<Item = (K, V)>,
    {
        let mut bulk = Bulk::new(self, keys, Caller::Thread);
        loop {
            if !bulk.mine.is_empty() {
                let entered = bulk.enter();
                let loaded = {
                    let missing: Vec<&K> = bulk.mine.iter().map(|(_, guard)| guard.key()).collect();
                    // The iterator may be lazy, and is part of the load.
                    load(&missing)?.into_iter().collect()
                };
                bulk.insert(loaded, entered);
            } else if let Some(mut waiting) = bulk.theirs.pop_front() {
                let waited = waiting.waiter.follower.wait();
                bulk.arrive(waiting, waited);
            } else {
                return Ok(bulk.values);
            }
        }
    }

    /// Like [`try_get_or_insert_many`](Self::try_get_or_insert_many), but for a task; the loader
    /// gets clones of the missing keys.
    ///
    /// # Errors
    ///
    /// As [`try_get_or_insert_many`](Self::try_get_or_insert_many).
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time. Callers that wait for a key that it was loading take over.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// async fn fetch(keys: Vec<u32>) -> Result<Vec<(u32, u32)>, std::io::Error> {
    ///     Ok(keys.into_iter().map(|key| (key, key * key)).collect())
    /// }
    ///
    /// let cache = cortado::Cache::new(10);
    /// let values = cache.try_get_or_insert_many_async([2, 3], fetch).await.unwrap();
    /// assert_eq!(values, [Some(4), Some(9)]);
    /// # }
    /// ```
    pub async fn try_get_or_insert_many_async<I, E, F>(
        &self,
        keys: impl IntoIterator<Item = K>,
        mut load: impl FnMut(Vec<K>) -> F,
    ) -> Result<Vec<Option<V>>, E>
    where
        K: Clone,
        I: IntoIterator<Item = (K, V)>,
        F: Future<Output = Result<I, E>>,
    {
        let mut bulk = Bulk::new(self, keys, Caller::Task);
        loop {
            if !bulk.mine.is_empty() {
                let loaded = {
                    let mut loading = pin!({
                        let _entered = bulk.enter();
                        load(bulk.mine.iter().map(|(_, guard)| guard.key().clone()).collect())
                    });
                    poll_fn(|context| {
                        let _entered = bulk.enter();
                        let loaded = loading.as_mut().poll(context);
                        loaded.map_ok(|loaded| loaded.into_iter().collect())
                    })
                    .await?
                };
                let entered = bulk.enter();
                bulk.insert(loaded, entered);
            } else if let Some(mut waiting) = bulk.theirs.pop_front() {
                let waited = (&mut waiting.waiter.follower).await;
                bulk.arrive(waiting, waited);
            } else {
                return Ok(bulk.values);
            }
        }
    }
}
