//! `StoredResponse`: what an entry holds, and what it costs.

use http_cache::HttpResponse;
use http_cache_semantics::CachePolicy;

/// Bytes of an entry without its key, URL, body and response headers: the structs, and what the
/// policy keeps of a request with few headers. Between what glibc takes for a request with one
/// header (1200) and with four (1750).
const ENTRY_BYTES: usize = 1536;
/// Bytes of a header beside its text: a slot in the map of the response and one in that of the
/// policy, the room that both maps keep free, and the rounding of the allocator. With glibc it is
/// between 250 and 340, as the maps grow by powers of two.
const HEADER_BYTES: usize = 288;
/// How often the URL and the text of a header are stored: in the response and in its policy.
const COPIES: usize = 2;

/// A response and its caching policy, as the middleware handed them over.
#[derive(Clone, Debug)]
pub struct StoredResponse {
    /// The response.
    pub response: HttpResponse,
    /// What HTTP allows to do with it.
    pub policy: CachePolicy,
}

impl StoredResponse {
    /// Returns the cost of this response under a key, in bytes: an estimate of the memory that the
    /// entry takes.
    ///
    /// Body and key count once. The URL and the headers count twice, since the policy has copies, a
    /// header also with 288 bytes for its places in both maps; structs and request count as 1536
    /// bytes. The policy hides the headers of the request: if they are large (cookies, tokens), an entry takes
    /// more than it costs.
    ///
    /// # Examples
    ///
    /// ```
    /// use cortado_http_cache::StoredResponse;
    /// use http_cache::{HttpResponse, HttpVersion};
    /// use http_cache_semantics::CachePolicy;
    ///
    /// # fn main() -> Result<(), http_cache::BoxError> {
    /// let response = HttpResponse {
    ///     body: vec![0; 4096],
    ///     headers: [("age".to_string(), "10".to_string())].into(),
    ///     status: 200,
    ///     url: "http://example.org/".parse()?,
    ///     version: HttpVersion::Http11,
    /// };
    /// let request = http::Request::get("http://example.org/").body(())?;
    /// let policy = CachePolicy::new(&request, &response.parts()?);
    /// let stored = StoredResponse { response, policy };
    /// // Key, URL and body, the header, structs and request.
    /// assert_eq!(
    ///     stored.cost("GET:http://example.org/"),
    ///     23 + 2 * 19 + 4096 + (2 * (3 + 2) + 288) + 1536,
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn cost(&self, key: &str) -> u64 {
        let HttpResponse { body, headers, url, .. } = &self.response;
        let headers: usize = headers
            .iter()
            .map(|(name, value)| COPIES * (name.len() + value.len()) + HEADER_BYTES)
            .sum();
        (ENTRY_BYTES + key.len() + COPIES * url.as_str().len() + body.capacity() + headers) as u64
    }
}
