//! What can be set for `null`? Nothing.

use serde::Deserialize;

/// The settings of `null`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NullConfig {}
