//! In which order is a destination called? In that of the stream, whichever task runs first.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use futures_util::poll;
use tokio::sync::oneshot;

use crate::error::{ErrorKind, EtlError, EtlResult};

const NOT_BEGUN: &str = "the write before this one was not begun";

/// The calls of one cursor.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Told once the last of them has begun.
    last: Option<oneshot::Receiver<()>>,
}

/// The place of one call among them.
#[derive(Debug)]
pub(super) struct Place {
    before: Option<oneshot::Receiver<()>>,
    begun: oneshot::Sender<()>,
}

impl Calls {
    /// The place after the last one.
    pub(super) fn next(&mut self) -> Place {
        let (begun, last) = oneshot::channel();
        Place { before: self.last.replace(last), begun }
    }

    /// Those so far are over, whatever became of them.
    pub(super) fn begin_again(&mut self) {
        self.last = None;
    }
}

impl Place {
    /// Makes the call once the one before it has got as far as it gets without waiting.
    ///
    /// # Errors
    /// That of the call; and where the one before it was never made.
    pub(super) async fn take<T>(self, call: impl Future<Output = EtlResult<T>>) -> EtlResult<T> {
        let Self { before, begun } = self;
        if let Some(before) = before {
            before.await.map_err(|_| EtlError::new(ErrorKind::DestinationUnavailable, NOT_BEGUN))?;
        }
        let mut call = pin!(call);
        let first = poll!(call.as_mut());
        // There may be none after it.
        let _ = begun.send(());
        match first {
            Poll::Ready(done) => done,
            Poll::Pending => call.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    async fn made(place: Place, name: u8, made: Arc<Mutex<Vec<u8>>>) -> EtlResult<()> {
        let call = async {
            made.lock().unwrap().push(name);
            std::future::pending().await
        };
        place.take(call).await
    }

    #[tokio::test]
    async fn p2_calls_begin_in_their_order_though_the_task_of_the_last_one_runs_first() {
        let (mut calls, order) = (Calls::default(), Arc::new(Mutex::new(Vec::new())));
        let places = [1, 2, 3].map(|name| (name, calls.next()));
        for (name, place) in places.into_iter().rev() {
            tokio::spawn(made(place, name, Arc::clone(&order)));
            tokio::task::yield_now().await;
        }
        while order.lock().unwrap().len() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
    }

    #[tokio::test]
    async fn p2_no_call_is_made_where_the_one_before_it_was_not() {
        let (mut calls, order) = (Calls::default(), Arc::new(Mutex::new(Vec::new())));
        let (first, second) = (calls.next(), calls.next());
        drop(first);
        let error = made(second, 2, Arc::clone(&order)).await.unwrap_err();
        assert_eq!(error.message(), NOT_BEGUN);
        assert!(order.lock().unwrap().is_empty());
        calls.begin_again();
        assert!(calls.next().before.is_none());
    }
}
