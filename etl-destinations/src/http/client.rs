//! How does a request get to a server and its answer back? Over a few connections that are kept.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use etl::Secret;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use http::header::CONTENT_TYPE;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;

use super::tls::client_config;

/// No server takes longer to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection that nobody uses is kept as long; ClickHouse closes its own after 10 s by default.
const KEPT: Duration = Duration::from_secs(8);

/// What a client is made of.
#[derive(Debug)]
pub(crate) struct HttpOptions<'a> {
    /// `http://host:port` or `https://host:port`; `None` where every request names its own address.
    pub(crate) url: Option<&'a str>,
    /// The authority that signed the server's certificate, where the system does not know it.
    pub(crate) ca: Option<PathBuf>,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
    /// How many requests may be under way.
    pub(crate) connections: u16,
    /// What every request carries, such as who asks.
    pub(crate) headers: Vec<(&'static str, Secret)>,
}

/// Sends requests to one server.
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Body>>,
    url: Option<Uri>,
    headers: HeaderMap,
    timeout: Duration,
    free: Arc<Semaphore>,
}

/// What is sent, one after the other.
type Body = Chain<Chain<Bytes, Bytes>, Bytes>;

/// A request, which is a POST unless it says otherwise.
#[derive(Debug)]
pub(crate) struct HttpRequest {
    pub(crate) method: Method,
    /// Another address than the client's. It may have a query already.
    pub(crate) to: Option<String>,
    /// What it carries besides what every request does.
    pub(crate) headers: Vec<(String, Secret)>,
    /// How long the answer may be; a longer one is an error.
    pub(crate) most_bytes: usize,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) content_type: Option<String>,
    /// What comes before the content, the content, and what comes after it.
    pub(crate) body: [Bytes; 3],
}

impl Default for HttpRequest {
    fn default() -> Self {
        let (query, body) = (Vec::new(), [Bytes::new(), Bytes::new(), Bytes::new()]);
        let (headers, most_bytes) = (Vec::new(), usize::MAX);
        Self { method: Method::POST, to: None, headers, most_bytes, query, content_type: None, body }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// Whether the server may have got the request.
    #[cfg_attr(not(feature = "profile"), allow(dead_code, reason = "statements of ClickHouse may come twice"))]
    pub(crate) was_sent: bool,
    /// What failed.
    pub(crate) error: EtlError,
}

/// An answer, whatever its status says.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("server", &self.address()).finish_non_exhaustive()
    }
}

impl HttpClient {
    /// A client; nothing is connected yet.
    ///
    /// # Errors
    /// `Config` when the URL is none, or holds a password; `Tls` when the authorities cannot be read.
    pub(crate) fn new(options: HttpOptions<'_>) -> EtlResult<Self> {
        let named = options.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Vec<_>>();
        let (url, headers) = (options.url.map(parsed).transpose()?, headers(&named)?);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_config(options.ca.as_deref())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT)
            .pool_max_idle_per_host(options.connections.into())
            .build(connector);
        let free = Arc::new(Semaphore::new(options.connections.max(1).into()));
        Ok(Self { client, url, headers, timeout: options.timeout, free })
    }

    /// Host and port, for messages.
    pub(crate) fn address(&self) -> String {
        self.url.as_ref().map(authority).unwrap_or_default()
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    /// `DestinationUnavailable` when the server cannot be reached, or does not answer in time; it may have done what
    /// was asked all the same. `Tls` when it is not trusted.
    #[cfg_attr(
        not(feature = "clickhouse"),
        allow(dead_code, reason = "profiles ask to know whether a request was sent")
    )]
    pub(crate) async fn send(&self, request: HttpRequest) -> EtlResult<HttpAnswer> {
        self.ask(request).await.map_err(|unanswered| unanswered.error)
    }

    /// The same, for whom it matters whether the server may have got the request.
    ///
    /// # Errors
    /// As of [`send`](Self::send).
    pub(crate) async fn ask(&self, request: HttpRequest) -> Result<HttpAnswer, Unanswered> {
        let unsent = |error| Unanswered { was_sent: false, error };
        let _seat = self.free.acquire().await.or_etl(ErrorKind::Internal, "wait for a connection").map_err(unsent)?;
        let most_bytes = request.most_bytes;
        let request = self.request(request).map_err(unsent)?;
        let server = authority(request.uri());
        let answered = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| Unanswered { was_sent: !error.is_connect(), error: failed(error) })?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, most_bytes).collect().await;
            let body = body.map_err(|error| Unanswered { was_sent: true, error: unread(error, most_bytes) })?;
            Ok(HttpAnswer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
        };
        let answered = tokio::time::timeout(self.timeout, answered).await.unwrap_or_else(|_| {
            let error = EtlError::new(ErrorKind::DestinationUnavailable, "the server did not answer in time")
                .with("timeout", format!("{:?}", self.timeout))
                .hint("Raise `timeout` of the destination if what it does takes so long");
            Err(Unanswered { was_sent: true, error })
        });
        answered.map_err(|unanswered| Unanswered { error: unanswered.error.with("server", server), ..unanswered })
    }

    fn request(&self, request: HttpRequest) -> EtlResult<Request<Full<Body>>> {
        let HttpRequest { method, to, headers: own, query, content_type, body, .. } = request;
        let url = match (to, &self.url) {
            (Some(to), _) => addressed(&to)?,
            (None, Some(url)) => url.clone(),
            (None, None) => return Err(EtlError::new(ErrorKind::Internal, "a request has no address")),
        };
        let mut parts = url.into_parts();
        let before = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
        let path = match (query.is_empty(), before.contains('?')) {
            (true, _) => before.to_owned(),
            (false, true) => format!("{before}&{}", encoded(&query)),
            (false, false) => format!("{before}?{}", encoded(&query)),
        };
        let path = PathAndQuery::try_from(path).or_etl(ErrorKind::Internal, "make the address of a request")?;
        parts.path_and_query = Some(path);
        let url = Uri::from_parts(parts).or_etl(ErrorKind::Internal, "make the address of a request")?;
        let [before, content, after] = body;
        let body = Full::new(before.chain(content).chain(after));
        let request = Request::builder().method(method).uri(url).body(body);
        let mut request = request.or_etl(ErrorKind::Internal, "make a request")?;
        request.headers_mut().extend(self.headers.clone());
        request.headers_mut().extend(headers(&own)?);
        if let Some(content_type) = content_type {
            let content_type = HeaderValue::try_from(content_type).or_etl(ErrorKind::Internal, "make a request")?;
            request.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        Ok(request)
    }
}

fn authority(url: &Uri) -> String {
    url.authority().map(ToString::to_string).unwrap_or_default()
}

/// An address that a request goes to.
fn addressed(text: &str) -> EtlResult<Uri> {
    let url = text.parse::<Uri>().ok().filter(|url| is_http(url) && !authority(url).contains('@'));
    url.ok_or_else(|| {
        EtlError::new(ErrorKind::Config, "a request cannot be sent there: it is no address of HTTP")
            .hint("An address begins with https:// and a host, and holds no password")
    })
}

fn is_http(url: &Uri) -> bool {
    let is_http = [Scheme::HTTP, Scheme::HTTPS].iter().any(|scheme| url.scheme() == Some(scheme));
    is_http && url.authority().is_some_and(|authority| !authority.host().is_empty())
}

/// The pairs as the query of an address.
pub(crate) fn encoded(pairs: &[(String, String)]) -> String {
    let mut text = String::new();
    let add = |part: &str, text: &mut String| {
        for byte in part.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(byte.into()),
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    };
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        add(name, &mut text);
        text.push('=');
        add(value, &mut text);
    }
    text
}

impl HttpAnswer {
    /// Whether the server did what it was asked.
    pub(crate) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn parsed(text: &str) -> EtlResult<Uri> {
    let bad = |why: &str| {
        EtlError::new(ErrorKind::Config, "the destination's `url` cannot be used")
            .with("why", why)
            .hint("It looks like https://host:port; `user` and `password` are given beside it")
    };
    let url: Uri = text.parse().map_err(|_| bad("it is no address"))?;
    let Some(authority) = url.authority().filter(|_| is_http(&url)) else {
        return Err(bad("it is no address of HTTP"));
    };
    if authority.as_str().contains('@') {
        return Err(bad("it holds who logs in"));
    }
    if url.query().is_some() {
        return Err(bad("it holds settings"));
    }
    Ok(url)
}

fn headers(pairs: &[(String, Secret)]) -> EtlResult<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let unusable = || {
            EtlError::new(ErrorKind::Config, "a name or password of the destination cannot be sent over HTTP")
                .hint("It may hold no control characters")
        };
        let mut value = HeaderValue::from_bytes(value.expose().as_bytes()).map_err(|_| unusable())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::try_from(name.as_str()).map_err(|_| unusable())?, value);
    }
    Ok(headers)
}

/// What was wrong with a connection.
fn failed(error: impl std::error::Error + Send + Sync + 'static) -> EtlError {
    if is_distrust(&error) {
        return EtlError::new(ErrorKind::Tls, "could not encrypt the connection").because(error).hint(
            "Connect by a name in the server's certificate; name the authority that signed it in the destination's `ca`",
        );
    }
    EtlError::new(ErrorKind::DestinationUnavailable, "the server cannot be reached, or went away")
        .because(error)
        .hint("Check that the server runs, and the destination's `url`")
}

/// Why an answer that had begun could not be read.
fn unread(error: Box<dyn std::error::Error + Send + Sync>, most: usize) -> EtlError {
    if error.is::<LengthLimitError>() {
        return EtlError::new(ErrorKind::DestinationUnavailable, "the server's answer is longer than it may be")
            .with("limit", most);
    }
    EtlError::new(ErrorKind::DestinationUnavailable, "the server went away within its answer")
        .with("why", error)
        .hint("Check that the server runs, and the destination's `url`")
}

/// Whether it is an error of TLS, however it is wrapped.
fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    let within = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let within = within.map(|within| within as &(dyn std::error::Error + 'static));
    error.is::<rustls::Error>() || within.or_else(|| error.source()).is_some_and(is_distrust)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> HttpOptions<'_> {
        let timeout = Duration::from_secs(1);
        HttpOptions { url: Some(url), ca: None, timeout, connections: 1, headers: Vec::new() }
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_shown() {
        for url in
            ["", "localhost:8123", "ftp://x", "http://user:hunter2@host", "https://", "http://h/?password=hunter2"]
        {
            let error = HttpClient::new(options(url)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let client = HttpClient::new(options("http://127.0.0.1:1/clickhouse/")).unwrap();
        assert_eq!(client.address(), "127.0.0.1:1");
        let secret = vec![("x-key", Secret::new("a\nb"))];
        assert!(HttpClient::new(HttpOptions { headers: secret, ..options("http://h") }).is_err());
    }

    #[test]
    fn every_character_arrives_in_a_query() {
        let pairs = [("a b".to_owned(), "é&=?#+%/'\n".to_owned()), ("c".to_owned(), String::new())];
        assert_eq!(encoded(&pairs), "a%20b=%C3%A9%26%3D%3F%23%2B%25%2F%27%0A&c=");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_may_come_back() {
        let client = HttpClient::new(options("http://127.0.0.1:1")).unwrap();
        let request =
            HttpRequest { query: vec![("query".to_owned(), "SELECT 1".to_owned())], ..HttpRequest::default() };
        let error = client.send(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DestinationUnavailable, "{error}");
        assert!(!error.to_string().contains("SELECT"), "{error}");
    }
}
