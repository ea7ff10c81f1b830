import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ConsumerGroupListing;

/** Groups as the admin client of version 3 tells of them. */
final class GroupStates {
    static String of(ConsumerGroupDescription described) {
        return described.state().toString();
    }

    static Set<String> names(Admin admin) throws Exception {
        return admin.listConsumerGroups().all().get().stream().map(ConsumerGroupListing::groupId).collect(Collectors.toSet());
    }

    private GroupStates() {}
}
