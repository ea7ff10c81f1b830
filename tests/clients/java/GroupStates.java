import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;

/** Groups as the admin client of version 4 tells of them. */
final class GroupStates {
    static String of(ConsumerGroupDescription described) {
        return described.groupState().toString();
    }

    static Set<String> names(Admin admin) throws Exception {
        return admin.listGroups().all().get().stream().map(GroupListing::groupId).collect(Collectors.toSet());
    }

    private GroupStates() {}
}
