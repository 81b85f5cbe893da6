//! How long do the hot paths take a row, on this machine and now? `make micro` says it.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etl_instructions::{ROWS, paths};

/// So often within one measurement that what a path makes ready once does not count.
const TIMES: usize = 50;

fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements((ROWS * TIMES) as u64)).sample_size(20);
    for (name, path) in paths::ALL {
        group.bench_function(*name, |bencher| bencher.iter(|| path(TIMES)));
    }
    group.finish();
}

criterion_group!(micro, all);
criterion_main!(micro);
