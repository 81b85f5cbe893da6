//! Does a row whose key changes move, with everything that was not sent?

use super::trial::{CaseResult, NULL, Transaction, Trial, UNCHANGED, items};

pub(super) async fn a_key_change_moves_the_row(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "one"], &["2", "20", "two"], &["3", "30", "three"]]).await?;
    // Whole, partial, and partial after a partial update.
    let transaction = Transaction::at(100)
        .rekey(&table, &["1", NULL, NULL], &["11", "10", "one"])
        .rekey(&table, &["2", NULL, NULL], &["12", "21", UNCHANGED])
        .update(&table, &["3", "31", UNCHANGED])
        .rekey(&table, &["3", NULL, NULL], &["13", "32", UNCHANGED])
        .end();
    trial.deliver(&[transaction]).await?;
    trial.expect(&table, &[&["11", "10", "one"], &["12", "21", "two"], &["13", "32", "three"]]).await?;
    // With the insert in the same batch, onto a key that was just left, and on to be deleted.
    let transaction = Transaction::at(110)
        .insert(&table, &["4", "40", "four"])
        .rekey(&table, &["4", NULL, NULL], &["14", "41", UNCHANGED])
        .rekey(&table, &["11", NULL, NULL], &["15", "11", UNCHANGED])
        .rekey(&table, &["12", NULL, NULL], &["11", "22", UNCHANGED])
        .rekey(&table, &["13", NULL, NULL], &["16", "33", UNCHANGED])
        .delete(&table, &["16", NULL, NULL])
        .end();
    trial.deliver(&[transaction]).await?;
    trial.expect(&table, &[&["14", "41", "four"], &["15", "11", "one"], &["11", "22", "two"]]).await
}

pub(super) async fn keys_can_be_swapped_in_one_transaction(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "one"], &["2", "20", "two"]]).await?;
    let swap = |commit, big: &dyn Fn(&'static str) -> &'static str, (one, two): (&'static str, &'static str)| {
        Transaction::at(commit)
            .rekey(&table, &["1", NULL, NULL], &["-1", "10", big(one)])
            .rekey(&table, &["2", NULL, NULL], &["1", "20", big(two)])
            .rekey(&table, &["-1", NULL, NULL], &["2", "10", big(one)])
            .end()
    };
    trial.deliver(&[swap(100, &|big| big, ("one", "two"))]).await?;
    trial.expect(&table, &[&["1", "20", "two"], &["2", "10", "one"]]).await?;
    trial.deliver(&[swap(110, &|_| UNCHANGED, ("", ""))]).await?;
    trial.expect(&table, &[&["1", "20", "one"], &["2", "10", "two"]]).await
}
