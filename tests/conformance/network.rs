//! What is each fault where a network lies between a destination and its place?

use etl::destination::conformance::Fault;
use harness::proxy::{Cut, Proxy};

/// Lets the network behave like this from now on. Answers are lost once the destination has said this.
pub(crate) fn suffers(proxy: &Proxy, fault: Option<Fault>, said: &'static [u8]) {
    let control = proxy.control();
    match fault {
        Some(Fault::Reject) => {
            control.refuse();
            control.cut(Cut::Reset);
        }
        Some(Fault::LoseAnswers) => control.lose_answers_to(said),
        Some(Fault::Hang) => control.hold(),
        Some(Fault::Slow) => control.throttle(16 << 10),
        _ => {
            control.cut(Cut::Reset);
            control.forward();
        }
    }
}
