//! What goes wrong? Kills, restarts, cuts and connections of which only half is there, for as long as work goes on.

use std::future::Future;
use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use harness::kill::Program;
use harness::proxy::{Control, Cut, Direction};
use harness::seed::numbers;
use rand::RngExt;
use rand::rngs::StdRng;

/// Starts and kills the program again and again until the work is done; nothing of it is left then.
pub(crate) async fn kill_until<T>(program: &Program, seed: u64, work: impl Future<Output = T>) -> T {
    println!("kills from seed {seed}");
    let mut rng = numbers(seed, 3);
    let mut work = std::pin::pin!(work);
    loop {
        let mut running = program.start().unwrap();
        let life = Duration::from_millis(rng.random_range(300..2500));
        let done = tokio::select! {
            done = &mut work => Some(done),
            ended = running.end(life) => match ended {
                Ok(status) if status.code().is_some() => panic!("etl gave up: {status}\n{}", running.output()),
                _ => None,
            },
        };
        running.kill().await;
        if let Some(done) = done {
            return done;
        }
    }
}

/// Lets the program run, and does harm to what is around it until the work is done.
pub(crate) async fn harm_until<T>(
    program: &Program,
    work: impl Future<Output = T>,
    harm: impl Future<Output = std::convert::Infallible>,
) -> T {
    let mut running = program.start().unwrap();
    // A start that is disturbed is refused; what runs goes on.
    running.line("progress", Duration::from_secs(120)).await.unwrap();
    let done = tokio::select! {
        done = work => done,
        ended = running.end(Duration::from_secs(3600)) => panic!("etl gave up: {ended:?}\n{}", running.output()),
        never = harm => match never {},
    };
    running.terminate();
    let ended = running.end(Duration::from_secs(180)).await.unwrap();
    assert!(ended.success(), "{ended}\n{}", running.output());
    done
}

/// Restarts the server at once, as after a crash.
pub(crate) async fn restart_until<T>(
    program: &Program,
    server: &LocalPostgres,
    seed: u64,
    work: impl Future<Output = T>,
) -> T {
    let mut rng = numbers(seed, 1);
    let restarting = tokio::sync::Mutex::new(());
    let harm = async {
        loop {
            wait(&mut rng, 1500..4000).await;
            let _alone = restarting.lock().await;
            server.restart_immediate().await.unwrap();
        }
    };
    // The work is done only between two restarts: one that is cancelled leaves no server behind.
    let restarted = async {
        let done = work.await;
        let _whole = restarting.lock().await;
        done
    };
    harm_until(program, restarted, harm).await
}

/// Cuts connections, and lets half of them vanish without a word.
pub(crate) async fn cut_until<T>(program: &Program, proxy: &Control, seed: u64, work: impl Future<Output = T>) -> T {
    let mut rng = numbers(seed, 2);
    let harm = async {
        loop {
            wait(&mut rng, 300..1500).await;
            match rng.random_range(0..4) {
                0 => proxy.cut(Cut::Close),
                1 => proxy.cut(Cut::Reset),
                2 => {
                    proxy.half_open(Direction::ToClient);
                    wait(&mut rng, 200..800).await;
                    proxy.forward();
                    proxy.cut(Cut::Reset);
                }
                _ => {
                    proxy.half_open(Direction::ToServer);
                    wait(&mut rng, 200..800).await;
                    proxy.forward();
                    proxy.cut(Cut::Reset);
                }
            }
        }
    };
    let done = harm_until(program, work, harm).await;
    // The server must not keep what is half gone.
    proxy.forward();
    proxy.cut(Cut::Reset);
    done
}

async fn wait(rng: &mut StdRng, millis: std::ops::Range<u64>) {
    let millis = rng.random_range(millis);
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
