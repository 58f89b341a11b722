//! Loading as a task does: futures that hold the loader once, and no pin across an `.await`.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    hash::{BuildHasher, Hash},
    mem,
    ops::Deref,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{
    Cache, Claim, FillGuard,
    load::{Step, Waiter, own_key},
};
use crate::{
    engine::Trace,
    flight::{Arrival, Caller},
};

/// A clone of a value of the cache: what [`Cache::claim_async`] finds.
///
/// It dereferences to the value. Unlike a [`ValueRef`](crate::ValueRef) it pins no thread, and may
/// be held across an `.await`.
///
/// # Examples
///
/// ```
/// # #[tokio::main]
/// # async fn main() {
/// use cortado::{Cache, Claim};
///
/// let cache = Cache::new(10);
/// cache.insert("k", vec![1, 2]);
/// let claim = cache.claim_async("k", std::future::pending()).await;
/// let Claim::Hit(value) = claim else { unreachable!("it is there") };
/// assert_eq!(value.len(), 2);
/// assert_eq!(value.into_inner(), [1, 2]);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cloned<V>(V);

impl<V> Cloned<V> {
    /// Returns the value itself.
    pub fn into_inner(self) -> V {
        self.0
    }
}

impl<V> Deref for Cloned<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0
    }
}

/// A task on its way to the value of a key, or to the right to load it.
struct Asking<'a, K, V, S> {
    cache: &'a Cache<K, V, S>,
    hash: u64,
    state: State<'a, K, V, S>,
}

enum State<'a, K, V, S> {
    /// It has not been polled.
    New(K),
    /// It follows a load.
    Waiting(K, Waiter<'a, K, V, S>),
    /// It has returned.
    Over,
}

/// Where it has come to.
enum Answer<'a, K, V, S> {
    Hit(V),
    Load(FillGuard<'a, K, V, S>),
    Own(K),
}

impl<'a, K, V, S> Asking<'a, K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    fn new(cache: &'a Cache<K, V, S>, key: K) -> Self {
        Self { cache, hash: 0, state: State::New(key) }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Answer<'a, K, V, S>> {
        let cache = self.cache;
        let (mut key, mut trace) = match &mut self.state {
            State::New(_) => {
                let State::New(key) = mem::replace(&mut self.state, State::Over) else {
                    unreachable!("it was seen above");
                };
                self.hash = cache.engine.hash(&key);
                (key, Trace::Leave)
            }
            State::Waiting(_, waiter) => {
                let arrival = ready!(Pin::new(&mut waiter.follower).poll(context));
                match self.arrive(arrival) {
                    Ok(answer) => return Poll::Ready(answer),
                    Err(key) => (key, Trace::None),
                }
            }
            State::Over => panic!("polled after it was ready"),
        };
        loop {
            match cache.step(self.hash, key, mem::replace(&mut trace, Trace::None), Caller::Task) {
                Step::Return(value) => return Poll::Ready(Answer::Hit(value.clone())),
                Step::Load(guard) => return Poll::Ready(Answer::Load(guard)),
                Step::Fail(key) => return Poll::Ready(Answer::Own(key)),
                Step::Follow(mine, mut waiter) => {
                    let arrival = Pin::new(&mut waiter.follower).poll(context);
                    self.state = State::Waiting(mine, waiter);
                    match self.arrive(ready!(arrival)) {
                        Ok(answer) => return Poll::Ready(answer),
                        Err(mine) => key = mine,
                    }
                }
            }
        }
    }

    /// Returns what the load that it followed has led to, or the key, to ask again.
    fn arrive(
        &mut self,
        arrival: Arrival<'a, K, crate::engine::Loaded>,
    ) -> Result<Answer<'a, K, V, S>, K> {
        let State::Waiting(key, mut waiter) = mem::replace(&mut self.state, State::Over) else {
            unreachable!("it follows a load");
        };
        match arrival {
            Arrival::Completed => match waiter.share(&key) {
                Some(value) => Ok(Answer::Hit(value.clone())),
                None => Err(key),
            },
            Arrival::Lead(leader) => Ok(Answer::Load(self.cache.guard(self.hash, leader))),
            Arrival::TimedOut => unreachable!("no time is set"),
        }
    }

    /// Stops to follow; returns the key.
    fn give_up(&mut self) -> K {
        match mem::replace(&mut self.state, State::Over) {
            State::New(key) | State::Waiting(key, _) => key,
            State::Over => panic!("polled after it was ready"),
        }
    }
}

pin_project! {
    /// The future of the loaders.
    struct Loading<'a, K, V, S, F> {
        asking: Asking<'a, K, V, S>,
        guard: Option<FillGuard<'a, K, V, S>>,
        // Dropped before those who wait are woken.
        #[pin]
        load: Option<F>,
    }
}

impl<K, V, S, F, E> Future for Loading<'_, K, V, S, F>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
    F: Future<Output = Result<V, E>>,
{
    type Output = Result<V, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.guard.is_none() {
            match ready!(this.asking.poll(context)) {
                Answer::Hit(value) => {
                    this.load.set(None);
                    return Poll::Ready(Ok(value));
                }
                Answer::Load(guard) => *this.guard = Some(guard),
                Answer::Own(_) => own_key(),
            }
        }
        let loaded = {
            let _entered = this.guard.as_ref().map(FillGuard::enter);
            let load = this.load.as_mut().as_pin_mut().expect("it is there until it is ready");
            ready!(load.poll(context))
        };
        this.load.set(None);
        let guard = this.guard.take().expect("it was taken above");
        Poll::Ready(loaded.map(|value| guard.fill(value).clone()))
    }
}

pin_project! {
    /// A loader that cannot fail, as one that could.
    struct NeverFails<F> {
        #[pin]
        load: F,
    }
}

impl<F: Future> Future for NeverFails<F> {
    type Output = Result<F::Output, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().load.poll(context).map(Ok)
    }
}

pin_project! {
    /// The result of such a loader.
    struct Unfailing<F> {
        #[pin]
        loading: F,
    }
}

impl<V, F: Future<Output = Result<V, Infallible>>> Future for Unfailing<F> {
    type Output = V;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<V> {
        self.project().loading.poll(context).map(|loaded| match loaded {
            Ok(value) => value,
            Err(never) => match never {},
        })
    }
}

pin_project! {
    /// The future of [`Cache::claim_async`].
    struct Claiming<'a, K, V, S, F> {
        asking: Asking<'a, K, V, S>,
        #[pin]
        timeout: F,
    }
}

impl<'a, K, V, S, F> Future for Claiming<'a, K, V, S, F>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
    F: Future<Output = ()>,
{
    type Output = Claim<'a, K, V, S, Cloned<V>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(answer) = this.asking.poll(context) {
            return Poll::Ready(match answer {
                Answer::Hit(value) => Claim::Hit(Cloned(value)),
                Answer::Load(guard) => Claim::Fill(guard),
                Answer::Own(key) => Claim::Busy(key),
            });
        }
        ready!(this.timeout.poll(context));
        Poll::Ready(Claim::Busy(this.asking.give_up()))
    }
}

/// # Loading in tasks
///
/// As above. No runtime is asked for. A loader is polled by the future that it was given to and by
/// no other; if another caller loads already, it is dropped without being polled. The futures take
/// little more memory than the loader.
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    /// Returns a clone of the value of a key, or what `load` makes of it, which is inserted.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time. If it was loading, one of those who wait for it takes over.
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
    /// let cache = cortado::Cache::new(10);
    /// assert_eq!(cache.get_or_insert_async("k", async { 1 }).await, 1);
    /// assert_eq!(cache.get_or_insert_async("k", async { unreachable!() }).await, 1);
    /// # }
    /// ```
    pub fn get_or_insert_async(
        &self,
        key: K,
        load: impl Future<Output = V>,
    ) -> impl Future<Output = V> {
        Unfailing { loading: self.try_get_or_insert_async(key, NeverFails { load }) }
    }

    /// The same with a loader that may fail.
    ///
    /// # Errors
    ///
    /// As [`try_get_or_insert_with`](Self::try_get_or_insert_with).
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
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
    /// let cache = cortado::Cache::new(10);
    /// let failed = cache.try_get_or_insert_async("k", async { Err("offline") }).await;
    /// assert_eq!(failed, Err("offline"));
    /// let loaded = cache.try_get_or_insert_async("k", async { Ok::<_, &str>(1) }).await;
    /// assert_eq!(loaded, Ok(1));
    /// # }
    /// ```
    pub fn try_get_or_insert_async<E>(
        &self,
        key: K,
        load: impl Future<Output = Result<V, E>>,
    ) -> impl Future<Output = Result<V, E>> {
        Loading { asking: Asking::new(self, key), guard: None, load: Some(load) }
    }

    /// Returns a clone of the value of a key, or what `load` makes of the key, which is inserted.
    ///
    /// `load` need not have a copy of the key.
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
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
    /// async fn fetch(key: &str) -> usize {
    ///     key.len()
    /// }
    ///
    /// let cache = cortado::Cache::new(10);
    /// let load = async |key: &String| fetch(key).await;
    /// assert_eq!(cache.get_or_insert_with_key_async("four".to_string(), load).await, 4);
    /// # }
    /// ```
    pub async fn get_or_insert_with_key_async(&self, key: K, load: impl AsyncFnOnce(&K) -> V) -> V {
        let guard = match self.ask(key).await {
            Answer::Hit(value) => return value,
            Answer::Load(guard) => guard,
            Answer::Own(_) => own_key(),
        };
        let value = {
            let mut loading = pin!({
                let _entered = guard.enter();
                load(guard.key())
            });
            poll_fn(|context| {
                let _entered = guard.enter();
                loading.as_mut().poll(context)
            })
            .await
        };
        guard.fill(value).clone()
    }

    /// The same with a loader that may fail.
    ///
    /// # Errors
    ///
    /// As [`try_get_or_insert_with`](Self::try_get_or_insert_with).
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
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
    /// let cache = cortado::Cache::new(10);
    /// let parse = async |text: &&str| text.parse::<u32>();
    /// assert_eq!(cache.try_get_or_insert_with_key_async("4", parse).await, Ok(4));
    /// assert!(cache.try_get_or_insert_with_key_async("four", parse).await.is_err());
    /// # }
    /// ```
    pub async fn try_get_or_insert_with_key_async<E>(
        &self,
        key: K,
        load: impl AsyncFnOnce(&K) -> Result<V, E>,
    ) -> Result<V, E> {
        let guard = match self.ask(key).await {
            Answer::Hit(value) => return Ok(value),
            Answer::Load(guard) => guard,
            Answer::Own(_) => own_key(),
        };
        let value = {
            let mut loading = pin!({
                let _entered = guard.enter();
                load(guard.key())
            });
            poll_fn(|context| {
                let _entered = guard.enter();
                loading.as_mut().poll(context)
            })
            .await?
        };
        Ok(guard.fill(value).clone())
    }

    /// The same as [`claim`](Self::claim) for a task, which waits until `timeout` is ready: a timer
    /// of the runtime's, or [`std::future::pending()`] for as long as it takes.
    ///
    /// A hit is a clone of the value, so that the result may be held across an `.await`.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time. What it returns is a right that is handed on when it is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() {
    /// use std::future::{pending, ready};
    /// use cortado::{Cache, Claim};
    ///
    /// async fn look_up(cache: Cache<&'static str, u32>) -> u32 {
    ///     match cache.claim_async("k", pending()).await {
    ///         Claim::Hit(value) => *value,
    ///         Claim::Fill(guard) => {
    ///             let loaded = async { 7 }.await;
    ///             *guard.fill(loaded)
    ///         }
    ///         Claim::Busy(_) => unreachable!("it waits as long as it takes"),
    ///     }
    /// }
    ///
    /// let cache = Cache::new(10);
    /// let first = cache.claim_async("k", ready(())).await;
    /// assert!(matches!(cache.claim_async("k", ready(())).await, Claim::Busy("k")));
    /// drop(first);
    /// assert_eq!(tokio::spawn(look_up(cache.clone())).await.unwrap(), 7);
    /// # }
    /// ```
    pub fn claim_async(
        &self,
        key: K,
        timeout: impl Future<Output = ()>,
    ) -> impl Future<Output = Claim<'_, K, V, S, Cloned<V>>> {
        Claiming { asking: Asking::new(self, key), timeout }
    }

    fn ask<'a>(&'a self, key: K) -> impl Future<Output = Answer<'a, K, V, S>> {
        let mut asking = Asking::new(self, key);
        poll_fn(move |context| asking.poll(context))
    }
}
