"""The broker: what builders and hosts may ask. They have neither database nor keys; headway/broker has the table."""
