//! Does the proxy really do to a connection what it says?

use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

/// A server that sends back what it gets, behind a proxy, and one connection through it.
async fn echo() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let target = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let proxy = Proxy::start(target).await.expect("a proxy");
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("a connection");
    assert_eq!(ask(&mut client, b"hello").await.expect("an answer"), b"hello");
    (proxy, client)
}

async fn ask(client: &mut TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    client.write_all(bytes).await?;
    let mut answer = vec![0; bytes.len()];
    timeout(LONG, client.read_exact(&mut answer)).await.expect("in time")?;
    Ok(answer)
}

async fn silent(client: &mut TcpStream) -> bool {
    timeout(SOON, client.read_u8()).await.is_err()
}

#[tokio::test]
async fn what_goes_through_is_counted() {
    let (proxy, _client) = echo().await;
    let counters = proxy.control().counters();
    assert_eq!(counters, Counters { accepted: 1, open: 1, to_server: 5, to_client: 5, swallowed: 0 });
}

#[tokio::test]
async fn a_cut_ends_open_connections_and_lets_new_ones_in() {
    let (proxy, mut client) = echo().await;
    proxy.control().cut(Cut::Close);
    assert_eq!(timeout(LONG, client.read(&mut [0; 1])).await.expect("in time").expect("an orderly end"), 0);
    let mut again = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("a connection");
    assert_eq!(ask(&mut again, b"x").await.expect("an answer"), b"x");
}

#[tokio::test]
async fn a_reset_is_an_error_and_no_end() {
    let (proxy, mut client) = echo().await;
    proxy.control().cut(Cut::Reset);
    let error = timeout(LONG, client.read(&mut [0; 1])).await.expect("in time").expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_side_that_was_reset_takes_the_other_with_it() {
    let (proxy, client) = echo().await;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(client);
    let closed = async {
        while proxy.control().counters().open > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, closed).await.expect("the server hears of it");
}

#[tokio::test]
async fn a_held_connection_is_silent_and_loses_nothing() {
    let (proxy, mut client) = echo().await;
    proxy.control().hold();
    client.write_all(b"later").await.expect("written");
    assert!(silent(&mut client).await);
    proxy.control().forward();
    let mut answer = [0; 5];
    timeout(LONG, client.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(&answer, b"later");
}

#[tokio::test]
async fn a_half_open_connection_takes_bytes_and_gives_none() {
    for swallow in [Direction::ToServer, Direction::ToClient] {
        let (proxy, mut client) = echo().await;
        proxy.control().half_open(swallow);
        client.write_all(b"lost").await.expect("written");
        assert!(silent(&mut client).await);
        assert_eq!(proxy.control().counters().swallowed, 4);
        // What is lost stays lost: only a new connection is whole.
        proxy.control().forward();
        assert!(silent(&mut client).await);
        let mut new = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("a connection");
        assert_eq!(ask(&mut new, b"new").await.expect("an answer"), b"new");
    }
}

#[tokio::test]
async fn a_throttled_connection_is_as_slow_as_told() {
    let (proxy, mut client) = echo().await;
    proxy.control().throttle(20_000);
    let began = std::time::Instant::now();
    ask(&mut client, &[7; 10_000]).await.expect("an answer");
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_refused_connection_ends_before_the_server_sees_it() {
    let (proxy, _client) = echo().await;
    proxy.control().refuse();
    let mut refused = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("accepted by the kernel");
    assert!(matches!(timeout(LONG, refused.read(&mut [0; 1])).await.expect("in time"), Ok(0) | Err(_)));
    assert_eq!(proxy.control().counters().accepted, 1);
}

#[tokio::test]
async fn a_url_keeps_everything_but_host_and_port() {
    let (proxy, _client) = echo().await;
    let url = proxy.url("postgres://u:p@db.example:5432/shop?sslmode=disable");
    assert_eq!(url, format!("postgres://u:p@127.0.0.1:{}/shop?sslmode=disable", proxy.port()));
}

#[tokio::test]
async fn new_connections_lead_to_another_server_and_open_ones_stay() {
    let (proxy, mut client) = echo().await;
    let (other, _) = echo().await;
    proxy.control().lead_to(([127, 0, 0, 1], other.port()).into());
    let mut led = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("a connection");
    assert_eq!(ask(&mut led, b"there").await.expect("an answer"), b"there");
    assert_eq!((proxy.control().counters().accepted, other.control().counters().accepted), (2, 2));
    assert_eq!(ask(&mut client, b"here").await.expect("an answer"), b"here");
}
