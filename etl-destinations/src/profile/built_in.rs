//! Which profiles come with `etl`? Each file of the folder `profiles`.

/// A profile that comes with `etl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// By which it is named.
    pub name: &'static str,
    /// What its file says.
    pub text: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

impl BuiltIn {
    /// The one of this name.
    pub fn find(name: &str) -> Option<Self> {
        BUILT_IN.iter().find(|profile| profile.name == name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn every_profile_that_comes_with_it_is_right_and_named_as_its_file() {
        assert!(!BUILT_IN.is_empty());
        for BuiltIn { name, text } in BUILT_IN {
            let profile = Profile::read(text).unwrap_or_else(|problems| panic!("{name}: {problems}"));
            assert_eq!(profile.name, *name);
        }
        assert!(BuiltIn::find("nothing").is_none());
    }
}
