//! What does a bad network look like? A TCP proxy that forwards, cuts, holds, swallows one direction, or slows down.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A way that bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// How open connections are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both sides see an orderly end.
    Close,
    /// Both sides see a reset.
    Reset,
}

/// How many bytes and connections went through so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were accepted and reached the server.
    pub accepted: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Bytes that the server was sent.
    pub to_server: u64,
    /// Bytes that the client was sent.
    pub to_client: u64,
    /// Bytes that were read and sent to nobody.
    pub swallowed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Mode {
    hold: bool,
    swallow: Option<Direction>,
    /// What the client says before the server's answers are lost.
    last_heard: Option<&'static [u8]>,
    bytes_per_second: Option<u64>,
    refuse: bool,
    cuts: u64,
    cut: Cut,
    target: SocketAddr,
}

#[derive(Debug, Default)]
struct Totals {
    accepted: AtomicU64,
    open: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    swallowed: AtomicU64,
}

/// A proxy on a free port of 127.0.0.1. Dropping it ends it and every connection.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    control: Control,
    accepting: JoinHandle<()>,
}

/// Changes what a proxy does; holds for open and for new connections.
#[derive(Debug, Clone)]
pub struct Control {
    mode: watch::Sender<Mode>,
    totals: Arc<Totals>,
}

impl Proxy {
    /// Listens, and forwards to the server at `target`.
    ///
    /// # Errors
    /// No port could be opened.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (hold, refuse, cuts, cut) = (false, false, 0, Cut::Close);
        let mode = Mode { hold, swallow: None, last_heard: None, bytes_per_second: None, refuse, cuts, cut, target };
        let control = Control { mode: watch::Sender::new(mode), totals: Arc::default() };
        let accepting = tokio::spawn(accept(listener, control.clone()));
        Ok(Self { port, control, accepting })
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A Postgres URL that leads through this proxy: `url` with its host and port replaced.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let user = authority.rsplit_once('@').map_or_else(String::new, |(user, _)| format!("{user}@"));
        format!("{scheme}://{user}127.0.0.1:{}/{path}", self.port)
    }

    /// What changes the proxy's behaviour, from anywhere.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.control.cut(Cut::Close);
    }
}

impl Control {
    /// Ends every open connection. New ones are accepted unless refused.
    pub fn cut(&self, how: Cut) {
        self.mode.send_modify(|mode| {
            mode.cuts += 1;
            mode.cut = how;
        });
    }

    /// Stops reading and writing on both sides while connections stay open.
    pub fn hold(&self) {
        self.mode.send_modify(|mode| mode.hold = true);
    }

    /// Reads one direction and throws it away, as if the other side had vanished without a word.
    pub fn half_open(&self, swallow: Direction) {
        self.mode.send_modify(|mode| mode.swallow = Some(swallow));
    }

    /// Once the client has said this, what the server answers is lost.
    pub fn lose_answers_to(&self, said: &'static [u8]) {
        self.mode.send_modify(|mode| mode.last_heard = Some(said));
    }

    /// Lets through so many bytes a second in each direction of each connection.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.mode.send_modify(|mode| mode.bytes_per_second = Some(bytes_per_second.max(1)));
    }

    /// New connections lead to another server.
    pub fn lead_to(&self, target: SocketAddr) {
        self.mode.send_modify(|mode| mode.target = target);
    }

    /// Closes new connections at once.
    pub fn refuse(&self) {
        self.mode.send_modify(|mode| mode.refuse = true);
    }

    /// Ends every hold, half-open, throttle and refusal. What was swallowed stays lost.
    pub fn forward(&self) {
        self.mode.send_modify(|mode| {
            (mode.hold, mode.swallow, mode.bytes_per_second, mode.refuse) = (false, None, None, false);
            mode.last_heard = None;
        });
    }

    /// What went through so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            accepted: self.totals.accepted.load(Relaxed),
            open: self.totals.open.load(Relaxed),
            to_server: self.totals.to_server.load(Relaxed),
            to_client: self.totals.to_client.load(Relaxed),
            swallowed: self.totals.swallowed.load(Relaxed),
        }
    }
}

async fn accept(listener: TcpListener, control: Control) {
    while let Ok((client, _)) = listener.accept().await {
        let Mode { refuse, target, .. } = *control.mode.borrow();
        if refuse {
            continue;
        }
        let control = control.clone();
        tokio::spawn(async move {
            // A server that is down looks like one: the client's connection ends.
            if let Ok(server) = TcpStream::connect(target).await {
                control.totals.accepted.fetch_add(1, Relaxed);
                control.totals.open.fetch_add(1, Relaxed);
                connection(client, server, &control).await;
                control.totals.open.fetch_sub(1, Relaxed);
            }
        });
    }
}

async fn connection(mut client: TcpStream, mut server: TcpStream, control: &Control) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut mode = control.mode.subscribe();
    let cuts = mode.borrow_and_update().cuts;
    let how = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            // Where one side was reset, nobody would ever tell the other.
            tokio::try_join!(
                pump(from_client, to_server, Direction::ToServer, control),
                pump(from_server, to_client, Direction::ToClient, control),
            )
        };
        tokio::select! {
            _ = both => None,
            changed = mode.wait_for(|mode| mode.cuts != cuts) => Some(changed.map_or(Cut::Close, |mode| mode.cut)),
        }
    };
    if how == Some(Cut::Reset) {
        for stream in [&client, &server] {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    direction: Direction,
    control: &Control,
) -> io::Result<()> {
    let mut mode = control.mode.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    // What follows on lost bytes would be nonsense: a half that is gone stays gone.
    let mut is_gone = false;
    loop {
        let rate = passable(&mut mode).await.bytes_per_second;
        let most =
            rate.map_or(buffer.len(), |rate| usize::try_from(rate / 20).unwrap_or(usize::MAX).clamp(1, 16 * 1024));
        let read = from.read(&mut buffer[..most]).await?;
        let now = passable(&mut mode).await;
        let is_said = |said: &[u8]| buffer[..read].windows(said.len()).any(|bytes| bytes == said);
        if direction == Direction::ToServer && now.last_heard.is_some_and(is_said) {
            control.half_open(Direction::ToClient);
        }
        is_gone |= now.swallow == Some(direction);
        if is_gone {
            control.totals.swallowed.fetch_add(read as u64, Relaxed);
            if read == 0 {
                std::future::pending::<()>().await; // even the end of the stream is swallowed
            }
            continue;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        if let Some(rate) = now.bytes_per_second {
            tokio::time::sleep(Duration::from_secs_f64(read as f64 / rate as f64)).await;
        }
        to.write_all(&buffer[..read]).await?;
        let total =
            if direction == Direction::ToServer { &control.totals.to_server } else { &control.totals.to_client };
        total.fetch_add(read as u64, Relaxed);
    }
}

/// Waits while the proxy holds.
async fn passable(mode: &mut watch::Receiver<Mode>) -> Mode {
    let passed = mode.wait_for(|mode| !mode.hold).await.map(|mode| *mode);
    match passed {
        Ok(mode) => mode,
        Err(_) => std::future::pending().await, // the proxy is gone, and this task with it
    }
}

#[cfg(test)]
mod tests;
