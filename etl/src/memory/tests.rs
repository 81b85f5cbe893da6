//! Who gets bytes, who waits, and what becomes of buffers?

use futures_util::FutureExt;

use super::*;

const MIB: usize = 1 << 20;

/// 16 MiB: 5 are the stream's, 1 for its backlog, 1 for catching up, 2 are for copies, 7 for whoever comes first.
fn budget() -> MemoryBudget {
    MemoryBudget::new(16 * MIB)
}

fn now(budget: &MemoryBudget, part: Part, bytes: usize) -> Option<Claim> {
    budget.claim(part, bytes).now_or_never()
}

#[test]
fn p5_a_part_may_have_what_is_free_and_never_what_is_another_ones() {
    let budget = budget();
    let copies = now(&budget, Part::Copies, 9 * MIB).expect("all that is free");
    assert!(now(&budget, Part::Copies, 1).is_none());
    let stream = now(&budget, Part::Stream, 5 * MIB).expect("what is its own");
    assert!(now(&budget, Part::Stream, MIB).is_none());
    let backlog = now(&budget, Part::Backlog, MIB).expect("what is its own");
    let catching_up = now(&budget, Part::CatchUp, MIB).expect("what is its own");
    assert_eq!((budget.used(), budget.used_for(Part::Copies)), (16 * MIB, 9 * MIB));
    drop(copies);
    let _more = now(&budget, Part::Stream, 7 * MIB).expect("what the copies had");
    drop((stream, backlog, catching_up));
    assert_eq!((budget.used(), budget.most_used()), (7 * MIB, 16 * MIB));
}

#[test]
fn p5_what_is_too_large_for_the_budget_is_let_through_alone() {
    let budget = budget();
    let small = now(&budget, Part::Copies, MIB).expect("some");
    let large = now(&budget, Part::Copies, 100 * MIB).expect("it would never fit");
    assert!(now(&budget, Part::Copies, 100 * MIB).is_none(), "one at a time");
    assert!(now(&budget, Part::Copies, 1).is_none());
    assert!(now(&budget, Part::Stream, 5 * MIB).is_some(), "others have their own");
    assert!(now(&budget, Part::Backlog, MIB).is_some());
    assert!(now(&budget, Part::CatchUp, MIB).is_some());
    drop(large);
    assert!(now(&budget, Part::Copies, 100 * MIB).is_some());
    drop(small);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn who_asks_first_gets_first_and_who_gives_up_stands_in_nobodys_way() {
    let budget = budget();
    let all = budget.claim(Part::Copies, 9 * MIB).await;
    let mut large = Box::pin(budget.claim(Part::Copies, 4 * MIB));
    let mut small = Box::pin(budget.claim(Part::Copies, 1));
    assert!(large.as_mut().now_or_never().is_none() && small.as_mut().now_or_never().is_none());
    let mut all = all;
    drop(all.split(2 * MIB));
    assert!(small.as_mut().now_or_never().is_none(), "it came later");
    drop(large);
    assert_eq!(small.await.bytes(), 1);
    assert_eq!(budget.used(), 7 * MIB);
    assert!(!budget.is_pressed(Part::Copies));
}

#[tokio::test]
async fn those_who_hold_bytes_are_told_while_somebody_waits_for_them() {
    let budget = budget();
    let mut held = budget.charge(Part::Stream, 20 * MIB);
    assert!(budget.pressed(Part::Stream).now_or_never().is_none());
    let waiting = tokio::spawn({
        let budget = budget.clone();
        async move { budget.claim(Part::Stream, MIB).await }
    });
    budget.pressed(Part::Stream).await;
    assert!(!budget.is_pressed(Part::Copies));
    held.join(budget.charge(Part::Stream, MIB));
    drop(held);
    assert_eq!(waiting.await.unwrap().bytes(), MIB);
    assert!(!budget.is_pressed(Part::Stream));
}

#[test]
fn bytes_count_until_nobody_has_any_of_them() {
    let budget = budget();
    let block = held(vec![7_u8; 100], budget.charge(Part::Stream, 100));
    let piece = block.slice(10..20);
    drop(block);
    assert_eq!((budget.used(), &piece[..]), (100, &[7; 10][..]));
    drop(piece);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_buffer_is_used_again_once_nobody_reads_it() {
    let blocks = Blocks::new(16 * MIB);
    let mut buffer = blocks.take();
    buffer.extend_from_slice(b"some");
    let (some, place) = (buffer.split().freeze(), buffer.as_ptr().addr());
    blocks.put(buffer);
    let other = blocks.take();
    assert!(!(place..place + blocks.size()).contains(&other.as_ptr().addr()));
    drop(some);
    let again = blocks.take();
    assert_eq!(again.capacity(), blocks.size());
    assert_eq!(again.as_ptr().addr() + 4, place);
}

#[test]
fn buffers_that_nobody_needs_are_given_up() {
    let budget = MemoryBudget::new(16 * MIB);
    let size = budget.blocks().size();
    let mut parts = Vec::new();
    for _ in 0..200 {
        let mut buffer = budget.blocks().take();
        buffer.resize(size, 7);
        let claim = budget.charge(Part::Stream, size);
        parts.push(block::held_of_buffer(buffer.split().freeze(), claim));
        budget.blocks().put(buffer);
    }
    assert_eq!(budget.blocks().waiting_bytes(), 200 * size);
    parts.clear();
    assert!(budget.blocks().waiting_bytes() <= MIB + size, "{}", budget.blocks().waiting_bytes());
}
