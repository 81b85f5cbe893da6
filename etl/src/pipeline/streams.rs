//! Who asks for another stream, and when is it there? What a server remembers wrongly it forgets with its connection.

use tokio::sync::watch;

/// The streams of a run, by number.
#[derive(Debug, Default)]
pub(super) struct Streams {
    wanted: watch::Sender<u64>,
    opened: watch::Sender<u64>,
}

impl Streams {
    /// Asks for another stream, and returns once it is open.
    pub(super) async fn reopen(&self) {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            number = *wanted;
        });
        if self.opened.subscribe().wait_for(|opened| *opened >= number).await.is_err() {
            std::future::pending().await
        }
    }

    /// The number of the stream that is opened next.
    pub(super) fn next(&self) -> u64 {
        *self.wanted.borrow()
    }

    /// The stream of this number is open.
    pub(super) fn opened(&self, number: u64) {
        self.opened.send_replace(number);
    }

    /// Returns once another one than this is wanted.
    pub(super) async fn is_over(&self, number: u64) {
        if self.wanted.subscribe().wait_for(|wanted| *wanted > number).await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asks_waits_for_a_stream_that_was_opened_after() {
        let streams = std::sync::Arc::new(Streams::default());
        let first = streams.next();
        streams.opened(first);
        let asking = tokio::spawn({
            let streams = std::sync::Arc::clone(&streams);
            async move { streams.reopen().await }
        });
        streams.is_over(first).await;
        streams.opened(first);
        tokio::task::yield_now().await;
        assert!(!asking.is_finished(), "that is the one before");
        streams.opened(streams.next());
        asking.await.unwrap();
    }
}
