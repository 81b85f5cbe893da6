//! Do the rules of the source hold on a real server? Each test makes a fault happen that loses rows without it.

mod r14_row_security;
mod r15_text;
mod r16_shutdown;
mod r17_joins;
mod r1_writers;
mod r2_rewrites;
mod r3_flush;
mod r4_positions;
mod r5_snapshots;
mod r8_identity;
mod r9_guards;
