//! Does everything that is in Postgres arrive, whatever happens meanwhile?

mod ack_relay;
mod catch_up;
mod choices;
mod confirmed;
mod copies;
mod copy_and_stream;
mod down;
mod identity;
mod idle;
mod large_rows;
mod leftovers;
mod published;
mod relay_full;
mod reshaped;
mod rules;
mod running;
mod shapes;
mod standby;
mod status;
mod stored;
mod streamed;
mod two_phase;
mod wal_guard;
mod watched;
mod wishes;
