"""What a tar holds, member by member, and which members are a sample."""
