//! Do the rules of the source hold on a real server? Each test makes a fault happen that loses rows without it.

mod r14_row_security;
mod r16_shutdown;
mod r1_writers;
mod r9_guards;
