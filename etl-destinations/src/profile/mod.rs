//! How does a system become a destination without a line of code? A profile in TOML says how it is spoken to.

#[cfg(feature = "profile")]
mod built_in;
mod config;
#[cfg(feature = "profile")]
mod read;
#[cfg(feature = "profile")]
mod run;
#[cfg(feature = "profile")]
mod shape;
#[cfg(feature = "profile")]
mod template;

#[cfg(feature = "profile")]
pub use self::built_in::{BUILT_IN, BuiltIn};
pub use self::config::{ProfileConfig, ProfileTable, WhereUnsupported};
#[cfg(feature = "profile")]
pub use self::read::{Problem, Problems};
#[cfg(feature = "profile")]
pub use self::run::System;
#[cfg(feature = "profile")]
pub use self::shape::{Profile, Wanted};
