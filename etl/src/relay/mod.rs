//! Where do changes wait? The ordered log of committed changes between the receiver and the appliers.

mod settings;

pub use settings::{AtLimit, RelaySettings};
