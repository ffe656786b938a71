use super::*;
use crate::records::Opened;
use crate::secret::Secret;

fn open(folder: &std::path::Path) -> (Records, std::thread::JoinHandle<()>) {
    let Opened { records, writer } = Opened::open(&folder.join("records.db")).unwrap();
    (records, std::thread::spawn(move || writer.run()))
}

fn admin(name: &str) -> Operator {
    Operator { name: name.to_owned(), role: Role::Admin }
}

#[tokio::test]
async fn a_session_ends_with_its_time_and_with_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let (records, writer) = open(folder.path());
    let [token, other] = [Secret::make().unwrap(), Secret::make().unwrap()];
    for (token, name) in [(&token, "ann"), (&other, "bob")] {
        records.add_operator(token.hash(), admin(name), String::new(), Timestamp(0)).await.unwrap().unwrap();
    }
    let [first, second] = [Secret::make().unwrap(), Secret::make().unwrap()];
    let nobody = records.open_session(first.hash(), first.hash(), Timestamp(0), Timestamp(100)).await.unwrap();
    assert_eq!(nobody, None, "what is no token opens nothing");
    for (session, ends) in [(&first, 100), (&second, 1_000)] {
        let opened = records.open_session(token.hash(), session.hash(), Timestamp(0), Timestamp(ends)).await.unwrap();
        assert_eq!(opened, Some(admin("ann")));
    }
    for (session, now, there) in
        [(&first, 99, true), (&first, 100, false), (&second, 999, true), (&second, 1_000, false)]
    {
        let found = records.session(session.hash(), Timestamp(now)).await.unwrap();
        assert_eq!(found.is_some(), there, "at {now}");
    }
    records.close_session(first.hash(), "ann".to_owned(), Timestamp(1)).await.unwrap();
    assert_eq!(records.session(first.hash(), Timestamp(2)).await.unwrap(), None);
    let ended = records.end_operator(token.hash().id(), "bob".to_owned(), Timestamp(3)).await.unwrap();
    assert_eq!(ended, Ok("ann".to_owned()));
    assert_eq!(records.session(second.hash(), Timestamp(4)).await.unwrap(), None);
    let last = records.end_operator(other.hash().id(), "bob".to_owned(), Timestamp(5)).await.unwrap();
    assert!(matches!(last, Err(Refused::Conflict(_))), "nobody would be left: {last:?}");
    let actions: Vec<String> = records.deeds(None, 10).await.unwrap().into_iter().map(|deed| deed.action).collect();
    assert_eq!(actions[..2], ["end a token", "sign out"]);
    records.close();
    writer.join().unwrap();
}

#[tokio::test]
async fn who_was_an_operator_before_there_were_roles_is_an_admin() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(include_str!("schema/1000.sql")).unwrap();
    connection.execute_batch(include_str!("schema/1001.sql")).unwrap();
    connection.pragma_update(None, "application_id", 0x484C_4350).unwrap();
    connection.pragma_update(None, "user_version", 1001).unwrap();
    let token = Hash::of("secret");
    connection.execute("INSERT INTO operator VALUES (?1, 'ann', 7)", [token.0]).unwrap();
    drop(connection);
    let (records, writer) = open(folder.path());
    assert_eq!(records.operator(token).await.unwrap(), Some(admin("ann")));
    records.close();
    writer.join().unwrap();
}
