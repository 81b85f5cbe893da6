//! Are values sent in binary? From the start if every type can be read so, and as text from when one comes that cannot.

use tokio::sync::watch;

use super::published::Published;
use super::run::Run;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::TableId;
use crate::transform::Selection;

/// How values are sent (`SOURCE.md` R15).
#[derive(Debug)]
pub(super) struct StreamForm {
    wanted: watch::Sender<Form>,
    /// What the open stream sends.
    now: watch::Sender<Form>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Binary,
}

impl StreamForm {
    /// Binary, where all of these tables can be read so.
    pub(super) fn of(tables: &[Published]) -> Self {
        let is_binary = tables.iter().all(|table| has_binary(&table.selection));
        let form = if is_binary { Form::Binary } else { Form::Text };
        Self { wanted: watch::Sender::new(form), now: watch::Sender::new(form) }
    }

    /// Whether the next stream is asked for in binary.
    pub(super) fn is_binary(&self) -> bool {
        *self.wanted.borrow() == Form::Binary
    }

    /// From the next stream on, text.
    pub(super) fn want_text(&self) {
        self.wanted.send_replace(Form::Text);
    }

    /// Returns once text is wanted.
    pub(super) async fn text_is_wanted(&self) {
        if self.wanted.subscribe().wait_for(|form| *form == Form::Text).await.is_err() {
            std::future::pending().await
        }
    }

    /// A stream is open, in this form.
    pub(super) fn opened(&self, is_binary: bool) {
        self.now.send_replace(if is_binary { Form::Binary } else { Form::Text });
    }

    /// Whether what is sent now is text.
    pub(super) fn is_text(&self) -> bool {
        *self.now.borrow() == Form::Text
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
        self.form.want_text();
        Err(EtlError::new(
            ErrorKind::SourceUnavailable,
            "a type has no binary form: the stream is about to go on as text",
        ))
    }
}
