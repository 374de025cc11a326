"""The cloud around a lab's nodes: a VPC with subnets, interfaces, addresses and security groups. See README.md."""
