//! Loading by tasks: the futures store the loader once, and hold no pin across an `.await`.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    hash::{BuildHasher, Hash},
    marker::PhantomData,
    mem,
    ops::Deref,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{
    Cache, Claim, FillGuard,
    load::{Look, Next, Shared, Waiter, own_key},
    loader::{EntryKey, Kind, OwnedKey, Try, Value},
};
use crate::singleflight::{Caller, SharedError, WaitOutcome};

/// A clone of a value of the cache; returned by [`Cache::claim_async`].
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

/// A task that asks for the value of a key, or for the right to load it. `E` is the error of a load
/// that it waits for, if it shares that.
struct Asking<'a, K, V, S, L, E> {
    cache: &'a Cache<K, V, S>,
    hash: u64,
    may_refresh: bool,
    accept: fn(SharedError) -> Option<E>,
    state: State<'a, K, V, S, L>,
}

enum State<'a, K, V, S, L> {
    /// It has not been polled.
    New(L),
    /// It follows a load.
    Waiting(K, Waiter<'a, K, V, S>),
    /// It has returned its answer.
    Over,
}

/// The answer to [`Asking`].
enum Answer<'a, K, V, S, E> {
    Hit(V),
    Load(FillGuard<'a, K, V, S>),
    Failed(E),
    Own(K),
}

impl<'a, K, V, S, L, E> Asking<'a, K, V, S, L, E>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
    L: EntryKey<K>,
{
    fn new(
        cache: &'a Cache<K, V, S>,
        key: L,
        may_refresh: bool,
        accept: fn(SharedError) -> Option<E>,
    ) -> Self {
        Self { cache, hash: 0, may_refresh, accept, state: State::New(key) }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Answer<'a, K, V, S, E>> {
        let cache = self.cache;
        let mut is_first = false;
        let mut key = match &mut self.state {
            State::New(_) => {
                let State::New(key) = mem::replace(&mut self.state, State::Over) else {
                    unreachable!("it was seen above");
                };
                self.hash = key.hash_by(&cache.engine);
                is_first = true;
                match cache.look(self.hash, key, self.may_refresh) {
                    Look::Hit(value) => return Poll::Ready(Answer::Hit(value.clone())),
                    Look::Refresh(guard) => return Poll::Ready(Answer::Load(guard)),
                    Look::Absent(key) => key,
                }
            }
            State::Waiting(_, waiter) => {
                let waited = ready!(Pin::new(&mut waiter.follower).poll(context));
                match self.arrive(waited) {
                    Ok(answer) => return Poll::Ready(answer),
                    Err(key) => key,
                }
            }
            State::Over => panic!("polled after it was ready"),
        };
        loop {
            let is_first = mem::replace(&mut is_first, false);
            match cache.join_load(self.hash, key, is_first, Caller::Task) {
                Next::Return(value) => return Poll::Ready(Answer::Hit(value.clone())),
                Next::Load(guard) => return Poll::Ready(Answer::Load(guard)),
                Next::Fail(key) => return Poll::Ready(Answer::Own(key)),
                Next::Follow(mine, mut waiter) => {
                    let waited = Pin::new(&mut waiter.follower).poll(context);
                    self.state = State::Waiting(mine, waiter);
                    match self.arrive(ready!(waited)) {
                        Ok(answer) => return Poll::Ready(answer),
                        Err(mine) => key = mine,
                    }
                }
            }
        }
    }

    /// Returns the outcome of the load that it followed, or the key if it has to ask again.
    fn arrive(
        &mut self,
        waited: WaitOutcome<'a, K, crate::engine::Loaded>,
    ) -> Result<Answer<'a, K, V, S, E>, K> {
        let State::Waiting(key, mut waiter) = mem::replace(&mut self.state, State::Over) else {
            unreachable!("it follows a load");
        };
        match waited {
            WaitOutcome::Completed => match waiter.share(&key) {
                Shared::Value(value) => Ok(Answer::Hit(value.clone())),
                Shared::Failed(error) => (self.accept)(error).map(Answer::Failed).ok_or(key),
                Shared::Nothing => Err(key),
            },
            WaitOutcome::Lead(leader) => {
                Ok(Answer::Load(self.cache.guard(self.hash, leader, None)))
            }
            WaitOutcome::TimedOut => unreachable!("no time is set"),
        }
    }

    /// Stops following; returns the key.
    fn give_up(&mut self) -> K {
        match mem::replace(&mut self.state, State::Over) {
            State::New(key) => key.into_key(),
            State::Waiting(key, _) => key,
            State::Over => panic!("polled after it was ready"),
        }
    }
}

pin_project! {
    /// The future of the loaders of a [`Kind`] `M`.
    pub(super) struct Loading<'a, K, V, S, L, F, M, E> {
        asking: Asking<'a, K, V, S, L, E>,
        guard: Option<FillGuard<'a, K, V, S>>,
        // Dropped before the waiting callers are woken.
        #[pin]
        load: Option<F>,
        kind: PhantomData<fn() -> M>,
    }
}

impl<K, V, S, L, F, M> Future for Loading<'_, K, V, S, L, F, M, M::Error>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
    L: EntryKey<K>,
    F: Future,
    M: Kind<V, F::Output>,
{
    type Output = Result<V, M::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.guard.is_none() {
            match ready!(this.asking.poll(context)) {
                Answer::Hit(value) => {
                    this.load.set(None);
                    return Poll::Ready(Ok(value));
                }
                Answer::Failed(error) => {
                    this.load.set(None);
                    return Poll::Ready(Err(error));
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
        Poll::Ready(guard.finish::<M, _>(loaded).map(|value| value.clone()))
    }
}

pin_project! {
    /// The future of a loader that cannot fail.
    struct Unfailing<F> {
        #[pin]
        loading: F,
    }
}

impl<V, F: Future<Output = Result<V, Infallible>>> Future for Unfailing<F> {
    type Output = V;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<V> {
        self.project().loading.poll(context).map(|Ok(value)| value)
    }
}

pin_project! {
    /// The future of [`Cache::claim_async`].
    struct Claiming<'a, K, V, S, F> {
        asking: Asking<'a, K, V, S, OwnedKey<K>, Infallible>,
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
/// As above. No runtime is required. A loader is polled only by the future that it was passed to;
/// if another caller already loads the key, it is dropped without being polled. The futures take
/// little more memory than the loader.
impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq,
    V: Clone,
    S: BuildHasher,
{
    /// Returns a clone of the value of a key, or inserts the result of `load`.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time. If it was loading, one of the waiting callers takes over.
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
    #[doc(alias("get_with"))]
    pub fn get_or_insert_async(
        &self,
        key: K,
        load: impl Future<Output = V>,
    ) -> impl Future<Output = V> {
        unfailing(self.load_async_by::<Value, _, _>(OwnedKey(key), load))
    }

    /// Like [`get_or_insert_async`](Self::get_or_insert_async), but with a loader that may fail.
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
    #[doc(alias("try_get_with"))]
    pub fn try_get_or_insert_async<E>(
        &self,
        key: K,
        load: impl Future<Output = Result<V, E>>,
    ) -> impl Future<Output = Result<V, E>> {
        self.load_async_by::<Try<E>, _, _>(OwnedKey(key), load)
    }

    /// Returns a clone of the value of a key, or inserts the result of `load`, which gets a
    /// reference to the key.
    ///
    /// So `load` needs no copy of the key.
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
        let Ok(value) = self.load_async_by_key::<Value, _>(key, load).await;
        value
    }

    /// Like [`get_or_insert_with_key_async`](Self::get_or_insert_with_key_async), but with a loader
    /// that may fail.
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
        self.load_async_by_key::<Try<E>, _>(key, load).await
    }

    /// Like [`claim`](Self::claim), but for a task, which waits until `timeout` is ready. Pass a
    /// timer of the runtime, or [`std::future::pending()`] to wait as long as the load takes.
    ///
    /// A hit is a clone of the value, so the result may be held across an `.await`.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time. If the returned guard is dropped, its right to load is passed
    /// on.
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
    #[doc(alias("get_value_or_guard_async"))]
    pub fn claim_async(
        &self,
        key: K,
        timeout: impl Future<Output = ()>,
    ) -> impl Future<Output = Claim<'_, K, V, S, Cloned<V>>> {
        let asking = Asking::new(self, OwnedKey(key), false, |_| None);
        Claiming { asking, timeout }
    }

    /// Returns a future of the value of a key, or of the result of `load`.
    pub(super) fn load_async_by<'a, M, L, F>(
        &'a self,
        key: L,
        load: F,
    ) -> Loading<'a, K, V, S, L, F, M, M::Error>
    where
        L: EntryKey<K>,
        F: Future,
        M: Kind<V, F::Output>,
    {
        let asking = Asking::new(self, key, true, M::accept);
        Loading { asking, guard: None, load: Some(load), kind: PhantomData }
    }

    /// Like [`load_async_by`](Self::load_async_by), for a loader that is created when the key has
    /// to be loaded.
    async fn load_async_by_key<M, T>(
        &self,
        key: K,
        load: impl AsyncFnOnce(&K) -> T,
    ) -> Result<V, M::Error>
    where
        M: Kind<V, T>,
    {
        let mut asking = Asking::new(self, OwnedKey(key), true, M::accept);
        let guard = match poll_fn(move |context| asking.poll(context)).await {
            Answer::Hit(value) => return Ok(value),
            Answer::Load(guard) => guard,
            Answer::Failed(error) => return Err(error),
            Answer::Own(_) => own_key(),
        };
        let loaded = {
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
        guard.finish::<M, T>(loaded).map(|value| value.clone())
    }
}

/// Unwraps the output of a loader that cannot fail.
pub(super) fn unfailing<V>(
    loading: impl Future<Output = Result<V, Infallible>>,
) -> impl Future<Output = V> {
    Unfailing { loading }
}
