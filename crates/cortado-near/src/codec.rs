//! How keys and values are written on the server.

use std::{error::Error, fmt::Display, marker::PhantomData, str::FromStr, sync::Arc};

/// Why a value could not be encoded or decoded.
pub type CodecError = Box<dyn Error + Send + Sync>;

/// How keys are named on the server, and which key a name of the server stands for.
///
/// The server reports changes by name, so a codec also goes the way back: `decode` of what `encode`
/// has written is `Some` of an equal key. A load whose key breaks this rule fails with
/// [`Error::Key`](crate::Error::Key), because no invalidation could find its entry.
///
/// # Examples
///
/// ```
/// use cortado_near::KeyCodec;
///
/// /// Users are `user:<id>:profile`.
/// struct Profiles;
///
/// impl KeyCodec<u64> for Profiles {
///     fn encode(&self, id: &u64) -> Vec<u8> {
///         format!("user:{id}:profile").into_bytes()
///     }
///
///     fn decode(&self, name: &[u8]) -> Option<u64> {
///         let name = std::str::from_utf8(name).ok()?;
///         name.strip_prefix("user:")?.strip_suffix(":profile")?.parse().ok()
///     }
/// }
///
/// assert_eq!(Profiles.decode(&Profiles.encode(&7)), Some(7));
/// assert_eq!(Profiles.decode(b"user:7:cart"), None);
/// ```
pub trait KeyCodec<K>: Send + Sync + 'static {
    /// Returns the name of a key on the server.
    fn encode(&self, key: &K) -> Vec<u8>;

    /// Returns the key that a name stands for; `None` if that is no key of this cache.
    fn decode(&self, name: &[u8]) -> Option<K>;
}

/// How values are written on the server.
///
/// # Examples
///
/// ```
/// use cortado_near::{CodecError, ValueCodec};
///
/// struct BigEndian;
///
/// impl ValueCodec<u32> for BigEndian {
///     fn encode(&self, value: &u32) -> Result<Vec<u8>, CodecError> {
///         Ok(value.to_be_bytes().to_vec())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<u32, CodecError> {
///         Ok(u32::from_be_bytes(bytes.try_into()?))
///     }
/// }
///
/// assert_eq!(BigEndian.decode(&[0, 0, 1, 0]).unwrap(), 256);
/// assert!(BigEndian.decode(&[1]).is_err());
/// ```
pub trait ValueCodec<V>: Send + Sync + 'static {
    /// Returns the bytes of a value.
    ///
    /// # Errors
    ///
    /// Returns why the value cannot be written.
    fn encode(&self, value: &V) -> Result<Vec<u8>, CodecError>;

    /// Returns the value of some bytes.
    ///
    /// # Errors
    ///
    /// Returns why the bytes are no value.
    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError>;
}

/// Names keys by a prefix and their text ([`Display`] and [`FromStr`]).
///
/// # Examples
///
/// ```
/// use cortado_near::{KeyCodec, Prefixed};
///
/// let keys = Prefixed::new("user:");
/// assert_eq!(keys.encode(&7_u64), b"user:7");
/// assert_eq!(keys.decode(b"user:7"), Some(7_u64));
/// assert_eq!(KeyCodec::<u64>::decode(&keys, b"order:7"), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixed(String);

impl Prefixed {
    /// Returns the codec of a prefix, which may be empty.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self(prefix.into())
    }
}

impl<K: Display + FromStr> KeyCodec<K> for Prefixed {
    fn encode(&self, key: &K) -> Vec<u8> {
        format!("{}{key}", self.0).into_bytes()
    }

    fn decode(&self, name: &[u8]) -> Option<K> {
        std::str::from_utf8(name).ok()?.strip_prefix(&self.0)?.parse().ok()
    }
}

/// Writes values as their text ([`Display`] and [`FromStr`]): numbers, strings, addresses.
///
/// # Examples
///
/// ```
/// use cortado_near::{Text, ValueCodec};
///
/// assert_eq!(Text.encode(&1.5_f64).unwrap(), b"1.5");
/// let value: f64 = Text.decode(b"1.5").unwrap();
/// assert_eq!(value, 1.5);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text;

impl<V> ValueCodec<V> for Text
where
    V: Display + FromStr<Err: Into<CodecError>>,
{
    fn encode(&self, value: &V) -> Result<Vec<u8>, CodecError> {
        Ok(value.to_string().into_bytes())
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        std::str::from_utf8(bytes)?.parse().map_err(Into::into)
    }
}

/// Writes values that are bytes already: `Vec<u8>`, `Box<[u8]>`, `Arc<[u8]>`.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use cortado_near::{Bytes, ValueCodec};
///
/// let value: Arc<[u8]> = Bytes.decode(b"page").unwrap();
/// assert_eq!(Bytes.encode(&value).unwrap(), b"page");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes;

impl<V: AsRef<[u8]> + From<Vec<u8>>> ValueCodec<V> for Bytes {
    fn encode(&self, value: &V) -> Result<Vec<u8>, CodecError> {
        Ok(value.as_ref().to_vec())
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        Ok(bytes.to_vec().into())
    }
}

/// Writes an `Arc<V>` as another codec writes `V`: a hit then clones a pointer.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use cortado_near::{Shared, Text, ValueCodec};
///
/// let codec = Shared::<String, _>::new(Text);
/// let value: Arc<String> = codec.decode(b"a long text").unwrap();
/// assert_eq!(codec.encode(&value).unwrap(), b"a long text");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Shared<V, C> {
    codec: C,
    value: PhantomData<fn() -> V>,
}

impl<V, C: ValueCodec<V>> Shared<V, C> {
    /// Returns the codec over another one.
    pub fn new(codec: C) -> Self {
        Self { codec, value: PhantomData }
    }
}

impl<V: 'static, C: ValueCodec<V>> ValueCodec<Arc<V>> for Shared<V, C> {
    fn encode(&self, value: &Arc<V>) -> Result<Vec<u8>, CodecError> {
        self.codec.encode(value)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Arc<V>, CodecError> {
        self.codec.decode(bytes).map(Arc::new)
    }
}

/// Writes values as JSON, by `serde_json`.
///
/// # Examples
///
/// ```
/// use cortado_near::{Json, ValueCodec};
///
/// let one = (1_u32, "one".to_string());
/// assert_eq!(Json.encode(&one).unwrap(), br#"[1,"one"]"#);
/// let value: (u32, String) = Json.decode(br#"[1,"one"]"#).unwrap();
/// assert_eq!(value, one);
/// ```
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

#[cfg(feature = "json")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> ValueCodec<V> for Json {
    fn encode(&self, value: &V) -> Result<Vec<u8>, CodecError> {
        Ok(serde_json::to_vec(value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// Writes values in the compact binary format of the `postcard` crate.
///
/// # Examples
///
/// ```
/// use cortado_near::{Postcard, ValueCodec};
///
/// let bytes = Postcard.encode(&(1_u32, true)).unwrap();
/// assert_eq!(bytes, [1, 1]);
/// let value: (u32, bool) = Postcard.decode(&bytes).unwrap();
/// assert_eq!(value, (1, true));
/// ```
#[cfg(feature = "postcard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> ValueCodec<V> for Postcard {
    fn encode(&self, value: &V) -> Result<Vec<u8>, CodecError> {
        Ok(postcard::to_stdvec(value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        Ok(postcard::from_bytes(bytes)?)
    }
}
