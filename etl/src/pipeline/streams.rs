//! Which stream is open, which one is wanted, and are its values sent in binary? What a server remembers wrongly it
//! forgets with its connection; what it cannot send in binary it sends as text over the next.

use tokio::sync::watch;

use super::published::Published;
use super::run::Run;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::TableId;
use crate::transform::Selection;

/// One stream of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    number: u64,
    /// Whether values are sent in binary: from the start if every type can be read so, until one comes that cannot
    /// (`SOURCE.md` R15).
    pub(super) is_binary: bool,
}

/// The streams of a run, one after the other.
#[derive(Debug)]
pub(super) struct Streams {
    wanted: watch::Sender<Stream>,
    opened: watch::Sender<Stream>,
}

impl Streams {
    /// In binary, where all of these tables can be read so.
    pub(super) fn of(tables: &[Published]) -> Self {
        Self::beginning(tables.iter().all(|table| has_binary(&table.selection)))
    }

    fn beginning(is_binary: bool) -> Self {
        let first = Stream { number: 0, is_binary };
        Self { wanted: watch::Sender::new(first), opened: watch::Sender::new(first) }
    }

    /// Asks for another stream, and returns once it is open.
    pub(super) async fn reopen(&self) {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            wanted.number += 1;
            number = wanted.number;
        });
        if self.opened.subscribe().wait_for(|opened| opened.number >= number).await.is_err() {
            std::future::pending().await
        }
    }

    /// From the next stream on, text. Asked for once.
    pub(super) fn want_text(&self) {
        self.wanted.send_if_modified(|wanted| {
            wanted.number += u64::from(wanted.is_binary);
            std::mem::take(&mut wanted.is_binary)
        });
    }

    /// The stream that is opened next.
    pub(super) fn next(&self) -> Stream {
        *self.wanted.borrow()
    }

    /// This stream is open.
    pub(super) fn opened(&self, stream: Stream) {
        self.opened.send_replace(stream);
    }

    /// Returns once another one than this is wanted.
    pub(super) async fn is_over(&self, stream: Stream) {
        if self.wanted.subscribe().wait_for(|wanted| wanted.number > stream.number).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether what is sent now is text.
    pub(super) fn is_text(&self) -> bool {
        !self.opened.borrow().is_binary
    }

    /// Whether values of this choice can be read as they are sent now.
    pub(super) fn is_readable(&self, selection: &Selection) -> bool {
        self.is_text() || has_binary(selection)
    }
}

fn has_binary(selection: &Selection) -> bool {
    selection.wire.columns.iter().all(|column| column.kind.has_binary())
}

impl Run {
    /// Asks for text where the table needs it and `was_text` says that it did not come, and fails.
    ///
    /// # Errors
    /// `SourceUnavailable`: after a while it helps to try again.
    pub(super) fn require_readable(&self, id: TableId, was_text: bool) -> EtlResult<()> {
        if was_text || has_binary(&*self.selection(id)?) {
            return Ok(());
        }
        self.streams.want_text();
        Err(EtlError::new(
            ErrorKind::SourceUnavailable,
            "a type has no binary form: the stream is about to go on as text",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asks_waits_for_a_stream_that_was_opened_after() {
        let streams = std::sync::Arc::new(Streams::beginning(true));
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

    #[tokio::test]
    async fn text_is_sent_from_the_next_stream_on_and_asked_for_once() {
        let streams = Streams::beginning(true);
        let first = streams.next();
        streams.opened(first);
        streams.want_text();
        streams.is_over(first).await;
        assert!(!streams.is_text(), "the open one goes on as it is");
        let second = streams.next();
        assert!(!second.is_binary);
        streams.want_text();
        assert_eq!(streams.next(), second);
        streams.opened(second);
        assert!(streams.is_text());
    }
}
