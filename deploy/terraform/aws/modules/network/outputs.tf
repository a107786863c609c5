output "vpc_id" { value = aws_vpc.this.id }
output "node_subnet_ids" { value = [for zone in var.zones : aws_subnet.nodes[zone].id] }
output "store_subnet_ids" { value = [for zone in var.zones : aws_subnet.stores[zone].id] }
output "store_cidrs" { value = [for zone in var.zones : aws_subnet.stores[zone].cidr_block] }
