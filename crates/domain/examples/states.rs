//! Prints every state of a run and the events that are legal in it.

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use gathering_domain::{RunEvent, RunState};

fn main() {
    for state in RunState::ALL {
        println!("{state}{}", if state.is_terminal() { " (final)" } else { "" });
        for event in RunEvent::ALL {
            if let Ok(next) = state.after(event) {
                println!("  {event:?} -> {next}");
            }
        }
    }
}
