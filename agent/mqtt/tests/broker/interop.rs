//! A client library that was not written beside the broker.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, PublishOptions, QoS};
use tokio::time::timeout;

use crate::double::{DEADLINE, Node};

#[tokio::test]
async fn rumqttc_exchanges_messages_at_every_qos() {
    let node = Node::start().await;
    let mut options = MqttOptions::new("interop", (node.address.ip().to_string(), node.address.port()));
    options.set_keep_alive(5);
    let (client, mut events) = AsyncClient::builder(options).capacity(10).build();
    client.subscribe("t/#", QoS::ExactlyOnce).await.unwrap();
    let mut heard = Vec::new();
    let conversation = async {
        while heard.len() < 3 {
            match events.poll().await.unwrap() {
                Event::Incoming(Packet::SubAck(_)) => {
                    for (level, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
                        let topic = format!("t/{level}");
                        client.publish(topic, vec![b'x'; 300], PublishOptions::new(qos)).await.unwrap();
                    }
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    heard.push(String::from_utf8(publish.topic.to_vec()).unwrap());
                }
                _ => {}
            }
        }
        // Lets the exchanges end.
        while node.broker.stats().queued_messages > 0 {
            let _ = timeout(Duration::from_millis(10), events.poll()).await;
        }
    };
    timeout(DEADLINE, conversation).await.unwrap();
    heard.sort();
    assert_eq!(heard, ["t/0", "t/1", "t/2"]);
    drop(events);
    node.stopped().await;
}
