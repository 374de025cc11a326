"""The cloud that a lab's nodes run in: a VPC with subnets, interfaces, addresses and security
groups. See README.md."""
