//! How is a vendor reached? Over HTTP on a port of loopback, with all that is scripted to go wrong.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use etl::clock::{self, Timestamp};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::journal::{Event, Journal};
use super::script::{Pattern, Script};
use super::{Answer, Asked, Fate, Fault, On, Vendor};

/// A request, and what its client was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// The request.
    pub asked: Asked,
    /// The status of the answer; `None` where the connection was closed instead.
    pub status: Option<u16>,
}

/// A vendor on a port of its own. Dropping it ends it and every connection.
#[derive(Debug)]
pub struct Server<V> {
    port: u16,
    within: Arc<Within<V>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Within<V> {
    state: Mutex<State<V>>,
    /// What open connections and waiting tests look at.
    signs: watch::Sender<Signs>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    asked: u64,
    cuts: u64,
    releases: u64,
    is_down: bool,
}

#[derive(Debug)]
struct State<V> {
    dir: PathBuf,
    /// The vendor as it was before it was asked anything.
    pristine: V,
    vendor: V,
    journal: Journal,
    exchanges: Vec<Exchange>,
    faults: Script<Fault>,
    fates: Script<Fate>,
    /// How far the vendor's time is ahead.
    ahead: Duration,
}

impl<V: Vendor> Server<V> {
    /// Starts a vendor, with all that it was asked before in this directory.
    ///
    /// # Errors
    /// No port could be opened, or the directory cannot be used.
    pub async fn start(vendor: V, dir: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let state = Mutex::new(State::open(vendor, dir)?);
        let within = Arc::new(Within { state, signs: watch::Sender::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&within)));
        Ok(Self { port, within, accepting })
    }

    /// Where it is reached, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets something go wrong with some requests.
    pub fn script(&self, on: On, fault: Fault) {
        self.within.state().faults.add(on, fault);
    }

    /// Says what becomes of the jobs that some requests make.
    pub fn foretell(&self, on: On, fate: Fate) {
        self.within.state().fates.add(on, fate);
    }

    /// From here on all is well.
    pub fn forgive(&self) {
        let mut state = self.within.state();
        state.faults.clear();
        state.fates.clear();
    }

    /// Sends the answers that are held.
    pub fn release(&self) {
        self.within.signs.send_modify(|signs| signs.releases += 1);
    }

    /// Lets time pass for the vendor alone: tokens expire, windows end, jobs are forgotten.
    pub fn pass(&self, time: Duration) {
        self.within.state().happen(Event::Passed(time));
    }

    /// Takes credentials back, or gives them again.
    pub fn credentials(&self, secret: &str, are_good: bool) {
        self.within.state().happen(Event::Credentials(secret.to_owned(), are_good));
    }

    /// Looks at the vendor.
    pub fn look<T>(&self, look: impl FnOnce(&V) -> T) -> T {
        look(&self.within.state().vendor)
    }

    /// All requests so far, those of earlier starts too.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.within.state().exchanges.clone()
    }

    /// The requests like this so far: `POST /a/*`.
    #[must_use]
    pub fn asked(&self, pattern: &str) -> Vec<Exchange> {
        let pattern = Pattern::new(pattern);
        let state = self.within.state();
        state.exchanges.iter().filter(|exchange| pattern.matches(&exchange.asked)).cloned().collect()
    }

    /// Waits until there have been so many requests like this.
    pub async fn until_asked(&self, pattern: &str, times: usize) {
        let mut signs = self.within.signs.subscribe();
        while self.asked(pattern).len() < times {
            signs.changed().await.expect("the server is there");
        }
    }

    /// Ends every connection, and takes no more.
    pub fn stop(&self) {
        self.within.signs.send_modify(|signs| (signs.cuts, signs.is_down) = (signs.cuts + 1, true));
    }

    /// Ends every connection, forgets all, and begins again from what is on disk.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn restart(&self) -> io::Result<()> {
        self.stop();
        let mut state = self.within.state();
        let again = State::open(state.pristine.clone(), &state.dir)?;
        let (faults, fates) = (state.faults.clone(), state.fates.clone());
        *state = State { faults, fates, ..again };
        drop(state);
        self.within.signs.send_modify(|signs| signs.is_down = false);
        Ok(())
    }
}

impl<V> Drop for Server<V> {
    fn drop(&mut self) {
        self.accepting.abort();
        self.within.signs.send_modify(|signs| (signs.cuts, signs.is_down) = (signs.cuts + 1, true));
    }
}

impl<V> Within<V> {
    fn state(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Vendor> State<V> {
    fn open(vendor: V, dir: &Path) -> io::Result<Self> {
        let (journal, events) = Journal::open(dir)?;
        let mut state = Self {
            dir: dir.to_owned(),
            pristine: vendor.clone(),
            vendor,
            journal,
            exchanges: Vec::new(),
            faults: Script::default(),
            fates: Script::default(),
            ahead: Duration::ZERO,
        };
        for event in events {
            state.play(event);
        }
        Ok(state)
    }

    fn happen(&mut self, event: Event) -> Option<Answer> {
        self.journal.write(&event).expect("the journal is written");
        self.play(event)
    }

    /// Lets something happen, for the first time or again.
    fn play(&mut self, event: Event) -> Option<Answer> {
        match event {
            Event::Passed(time) => self.ahead += time,
            Event::Credentials(secret, are_good) => self.vendor.credentials(&secret, are_good),
            Event::Asked(asked, _) => {
                let is_taken = asked.fault.as_ref().is_none_or(Fault::is_taken);
                let answer = is_taken.then(|| self.vendor.answer(&asked));
                let answer = match &asked.fault {
                    Some(Fault::Throttled(None)) => Some(self.vendor.failure(429)),
                    Some(Fault::Throttled(Some(after))) => Some(self.vendor.failure(429).with("retry-after", after)),
                    Some(Fault::Fails(status) | Fault::FailsAfter(status)) => Some(self.vendor.failure(*status)),
                    Some(Fault::Unheard | Fault::Unanswered) => None,
                    _ => answer,
                };
                let status = answer.as_ref().map(|answer| answer.status);
                self.exchanges.push(Exchange { asked, status });
                return answer;
            }
        }
        None
    }

    fn ask(&mut self, mut asked: Asked) -> (Option<Answer>, Option<Fault>) {
        asked.number = self.exchanges.len() as u64 + 1;
        let ahead = i64::try_from(self.ahead.as_micros()).unwrap_or(i64::MAX);
        asked.at = Timestamp(clock::now().0.saturating_add(ahead));
        asked.fault = self.faults.next(&asked);
        asked.fate = self.fates.next(&asked);
        let (length, fault) = (asked.body.len(), asked.fault.clone());
        (self.happen(Event::Asked(asked, length)), fault)
    }
}

async fn accept<V: Vendor>(listener: TcpListener, within: Arc<Within<V>>) {
    while let Ok((stream, _)) = listener.accept().await {
        if !within.signs.borrow().is_down {
            tokio::spawn(connection(stream, Arc::clone(&within)));
        }
    }
}

async fn connection<V: Vendor>(stream: TcpStream, within: Arc<Within<V>>) {
    let mut signs = within.signs.subscribe();
    let cuts = signs.borrow_and_update().cuts;
    let serving = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(|request| answered(request, Arc::clone(&within))));
    tokio::select! {
        // How a connection ends is its client's business.
        _ = serving => {}
        _ = signs.wait_for(|signs| signs.cuts != cuts) => {}
    }
}

/// What is sent, as it comes: a length that was announced may not be kept.
type Sent = StreamBody<Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send>>>;

/// An error closes the connection with nothing said.
async fn answered<V: Vendor>(request: Request<Incoming>, within: Arc<Within<V>>) -> io::Result<Response<Sent>> {
    let asked = read(request).await?;
    let (answer, fault) = within.state().ask(asked);
    let mut signs = within.signs.subscribe();
    let releases = signs.borrow_and_update().releases;
    within.signs.send_modify(|signs| signs.asked += 1);
    match fault {
        Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        Some(Fault::Held) => {
            signs.wait_for(|signs| signs.releases != releases).await.map_err(io::Error::other)?;
        }
        _ => {}
    }
    let Some(mut answer) = answer else { return Err(io::ErrorKind::ConnectionAborted.into()) };
    let whole = answer.body.len();
    if matches!(fault, Some(Fault::Truncated | Fault::Torn)) {
        answer.body.truncate(whole / 2);
    }
    Ok(sent(answer, if fault == Some(Fault::Torn) { Some(whole) } else { None }))
}

/// The answer on its way; where a length is announced that it does not have, the connection breaks off.
fn sent(answer: Answer, announced: Option<usize>) -> Response<Sent> {
    let mut response = Response::builder().status(answer.status);
    let length = announced.unwrap_or(answer.body.len());
    if answer.status != 204 {
        response = response.header("content-length", length);
    }
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let there = stream::iter([Ok(Frame::data(Bytes::from(answer.body)))]);
    let missing = stream::iter(announced).then(|_| async {
        // What is there is sent first.
        tokio::task::yield_now().await;
        Err(io::ErrorKind::ConnectionAborted.into())
    });
    let body: Sent = StreamBody::new(Box::pin(there.chain(missing)));
    response.body(body).expect("a status and headers that can be sent")
}

async fn read(request: Request<Incoming>) -> io::Result<Asked> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let query = parts.uri.query().unwrap_or_default();
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Ok(Asked {
        number: 0,
        at: Timestamp::default(),
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: parts.headers.iter().map(header).collect(),
        fault: None,
        fate: None,
        body: body.to_vec(),
    })
}
